//! Calls of one branch that meet: whoever comes first, there is one result, and all hear of the same.

use super::shop::{Heard, Shop};
use crate::support::shared::unique;

const ROUNDS: usize = 200;
const MESSAGE_ROUNDS: usize = 100;

/// An action, the same again, and its compensation, all at once. The sums differ, so that a balance tells what ran.
pub async fn calls_that_meet_have_one_result(shop: &Shop) {
    for round in 0..ROUNDS {
        let gid = unique("race");
        shop.open(&gid, 0).await;
        let action = || shop.call_until_decided(&gid, "01", "action", 7);
        let compensation = || shop.call_until_decided(&gid, "01", "compensate", -5);
        // Whoever is asked first has a head start: take turns.
        let (one, other, undone) = if round % 2 == 0 {
            let (one, undone, other) = tokio::join!(action(), compensation(), action());
            (one, other, undone)
        } else {
            let (undone, one, other) = tokio::join!(compensation(), action(), action());
            (one, other, undone)
        };
        let ran = [one, other].iter().filter(|heard| **heard == Heard::Ran).count();
        let all = (one, other, undone);
        assert!([one, other].iter().all(|heard| matches!(heard, Heard::Ran | Heard::Repeated)), "{all:?}");
        match undone {
            Heard::Ran => assert_eq!((ran, shop.balance(&gid).await), (1, 2), "round {round}: {all:?}"),
            Heard::Empty => assert_eq!((ran, shop.balance(&gid).await), (0, 0), "round {round}: {all:?}"),
            // A compensation whose commit got no answer, and which was called again.
            _ => panic!("round {round}: {all:?}"),
        }
    }
}

/// What a check-back said stays true.
pub async fn a_check_back_that_meets_its_message_is_final(shop: &Shop) {
    for round in 0..MESSAGE_ROUNDS {
        let gid = unique("message-race");
        shop.open(&gid, 0).await;
        let check_back = async || {
            for _ in 0..200 {
                match shop.check_back(&gid).await {
                    Heard::Again => tokio::task::yield_now().await,
                    answer => return answer,
                }
            }
            panic!("200 check-backs and no answer");
        };
        let message = || shop.call_until_decided(&gid, "00", "msg", 7);
        let (happened, answer) = if round % 2 == 0 {
            tokio::join!(message(), check_back())
        } else {
            let (answer, happened) = tokio::join!(check_back(), message());
            (happened, answer)
        };
        let expected = match happened {
            Heard::Ran => (Heard::Ran, 7),
            Heard::Duplicated => (Heard::Failure, 0),
            _ => panic!("round {round}: {happened:?}"),
        };
        assert_eq!((answer, shop.balance(&gid).await), expected, "round {round}: {happened:?}");
        assert_eq!(check_back().await, answer);
    }
}
