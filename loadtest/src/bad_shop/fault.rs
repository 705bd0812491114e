//! What the bad shop can do wrong.

use clap::ValueEnum;

/// One mistake. Most hit every tenth order or so, since a shop that is always wrong is found by anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum Fault {
    /// None: an honest shop.
    None,
    /// Sells a dozen more orders than there are units for.
    Oversell,
    /// Keeps the last five units.
    Withhold,
    /// Units of orders that the order service refused do not come back.
    LeakUnits,
    /// Says that stock was added, and does not add it.
    ForgetRestock,
    /// Says yes, and never tells the order service.
    LoseOrder,
    /// Says that an order exists, which the order service refused.
    TellTooEarly,
    /// Says that the sale is paused, and makes the order.
    SayNoAndSell,
    /// Does not know its orders when asked for them later.
    ForgetOrders,
    /// Does not know keys: every request is a new order.
    ForgetKeys,
    /// Makes an order twice, with two gids.
    MakeTwice,
    /// Gives one gid to two buyers.
    ShareGid,
    /// Counts no limit.
    IgnoreLimit,
    /// Counts orders that failed against the limit.
    LimitLeaks,
    /// Looks at the stock before it looks at the key.
    StockBeforeKey,
    /// Does not say that an answer is a repeat.
    ForgetToMark,
    /// Takes another order under a key that was used.
    ReuseKey,
    /// Sells before the opening.
    OpenEarly,
    /// Sells after the closing.
    CloseLate,
    /// Says before the closing that it is closed.
    CloseEarly,
    /// Says after the opening that it is not open.
    StayShut,
    /// Orders one unit more than the buyer did.
    WrongQuantity,
    /// Orders another SKU.
    WrongSku,
    /// Orders in another buyer's name.
    WrongBuyer,
    /// Says that an order is cancelled, and keeps it.
    KeepCancelled,
    /// Lets a confirmed reservation run out.
    ReleaseConfirmed,
    /// Reservations never run out.
    NeverExpire,
    /// The audit shows a unit more sold than there are orders.
    CookBooks,
    /// Says that an order exists, and later that it is on its way.
    GoBack,
}
