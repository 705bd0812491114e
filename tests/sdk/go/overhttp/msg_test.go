package overhttp

import (
	"database/sql"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/dtm-labs/client/dtmcli"
	"rushline.test/sdk/shop"
	"rushline.test/sdk/story"
)

func init() {
	// Dies with its local work done, before rushline hears of it.
	story.Death("after the commit", func(gid string) {
		store, order := story.DeathsOrder()
		twice := shop.Order{Account: order.Account, Amount: 2 * order.Amount}
		msg := dtmcli.NewMsg(story.HTTP(), gid).Add(story.Shop.URL(store+"/out"), twice)
		msg.TimeoutToFail = story.UndecidedS
		_ = msg.DoAndSubmit(queryPrepared(store), func(barrier *dtmcli.BranchBarrier) error {
			if err := story.Shop.Move(store, "out", barrier, order); err != nil {
				return err
			}
			story.Die()
			return nil
		})
	})
	// Dies before its local work.
	story.Death("before the commit", func(gid string) {
		store, order := story.DeathsOrder()
		msg := message(gid, "postgres", order)
		msg.TimeoutToFail = 1
		_ = msg.DoAndSubmit(queryPrepared(store), func(*dtmcli.BranchBarrier) error {
			story.Die()
			return nil
		})
	})
}

func queryPrepared(store string) string { return story.Shop.URL(store + "/query-prepared") }

// message puts the amount into an account of that store.
func message(gid, store string, order shop.Order) *dtmcli.Msg {
	return dtmcli.NewMsg(story.HTTP(), gid).Add(story.Shop.URL(store+"/in"), order)
}

func TestMessagePreparedAndSubmitted(t *testing.T) {
	t.Parallel()
	gid, orders := newGid(), story.Accounts(t, shop.Stores)
	msg := dtmcli.NewMsg(story.HTTP(), gid)
	for i, store := range shop.Stores {
		msg.Add(story.Shop.URL(store+"/in"), orders[i])
	}
	story.Must(t, msg.Prepare(queryPrepared("mysql")))
	story.Same(t, []string{story.Query(t, gid).Status()}, "prepared")
	msg.WaitResult = true
	story.Must(t, msg.Submit())
	for i, store := range shop.Stores {
		story.Has(t, store, orders[i], 130, 0)
	}
	story.Same(t, story.Shop.Steps(gid), "action/01", "action/02", "action/03", "action/04")
}

// The local work and the message are decided together, whatever store the work is in.
func TestMessageWithLocalWork(t *testing.T) {
	t.Parallel()
	for _, store := range shop.Stores {
		gid, orders := newGid(), story.Accounts(t, []string{store, "postgres"})
		err := message(gid, "postgres", orders[1]).DoAndSubmit(queryPrepared(store), func(barrier *dtmcli.BranchBarrier) error {
			return story.Shop.Move(store, "out", barrier, orders[0])
		})
		story.Must(t, err)
		story.WaitFor(t, gid, "succeed")
		story.Has(t, store, orders[0], 70, 0)
		story.Has(t, "postgres", orders[1], 130, 0)
	}
}

func TestMessageDoAndSubmitDB(t *testing.T) {
	t.Parallel()
	gid, order := newGid(), story.Account(t, "postgres")
	err := message(gid, "postgres", order).DoAndSubmitDB(queryPrepared("mysql"), story.Shop.SQL("mysql"), func(*sql.Tx) error {
		return story.Refused("not today")
	})
	story.MustFail(t, err, "not today")
	story.WaitFor(t, gid, "failed")
	story.Has(t, "postgres", order, 100, 0)
	// The same gid again: it is over.
	err = message(gid, "postgres", order).DoAndSubmitDB(queryPrepared("mysql"), story.Shop.SQL("mysql"), func(*sql.Tx) error {
		t.Error("the work must not be begun")
		return nil
	})
	story.MustFail(t, err, "cannot prepare")
}

func TestMessageCrashAfterCommit(t *testing.T) {
	t.Parallel()
	for _, store := range shop.Stores {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			gid, order := newGid(), story.Account(t, store)
			story.CrashWith(t, "after the commit", gid, store, order)
			story.WaitFor(t, gid, "succeed")
			story.Same(t, story.Shop.Steps(gid), "msg/00", "action/01")
			// Once out of it by the local work, and twice by the branch.
			story.Has(t, store, order, 100-order.Amount-2*order.Amount, 0)
		})
	}
}

func TestMessageCrashBeforeCommit(t *testing.T) {
	t.Parallel()
	for _, store := range shop.Stores {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			gid, order := newGid(), story.Account(t, store)
			story.CrashWith(t, "before the commit", gid, store, order)
			story.WaitFor(t, gid, "failed")
			story.Same(t, story.Shop.Steps(gid), "msg/00")
			// Whoever wants to do the work now finds it forbidden.
			barrier, err := dtmcli.BarrierFrom("msg", gid, "00", "msg")
			story.Must(t, err)
			story.MustFail(t, story.Shop.Move(store, "out", barrier, order), "DUPLICATED")
			story.Has(t, store, order, 100, 0)
		})
	}
}

func TestMessageDelayed(t *testing.T) {
	t.Parallel()
	gid, order := newGid(), story.Account(t, "mysql")
	submitted := time.Now()
	story.Must(t, dtmcli.NewMsg(story.HTTP(), gid).Add(story.Shop.URL("mysql/in"), order).SetDelay(1).Submit())
	story.WaitFor(t, gid, "succeed")
	if waited := story.Shop.Calls(gid)[0].At.Sub(submitted); waited < time.Second {
		t.Fatalf("called after %v already", waited)
	}
	story.Has(t, "mysql", order, 130, 0)
}

func TestMessageConcurrent(t *testing.T) {
	t.Parallel()
	gid, orders := newGid(), story.Accounts(t, shop.SQLStores)
	first := story.Shop.Hold(gid, "action/01")
	msg := dtmcli.NewMsg(story.HTTP(), gid)
	for i, store := range shop.SQLStores {
		msg.Add(story.Shop.URL(store+"/in"), orders[i])
	}
	msg.Concurrent = true
	story.Must(t, msg.Submit())
	story.WaitForStep(t, gid, "action/02", 1)
	first()
	story.WaitFor(t, gid, "succeed")
}

func get(t *testing.T, route string, parameters url.Values) error {
	t.Helper()
	answer, err := dtmcli.GetRestyClient().R().SetQueryParamsFromValues(parameters).Get(story.HTTP() + "/" + route)
	if err == nil && answer.StatusCode() != 200 {
		err = fmt.Errorf("%d %s", answer.StatusCode(), answer)
	}
	return err
}

// dtm finds topics only among the first keys of its Redis; here the store is full of others.
func TestMessageToTopicsInAFullStore(t *testing.T) {
	t.Parallel()
	for i := range 300 {
		story.Must(t, get(t, "subscribe", url.Values{"topic": {fmt.Sprintf("crowd-%d", i)}, "url": {story.Shop.URL("told/a")}}))
	}
	topic := "paid-" + newGid()
	for _, store := range shop.SQLStores {
		story.Must(t, get(t, "subscribe", url.Values{"topic": {topic}, "url": {story.Shop.URL(store + "/in")}, "remark": {store}}))
	}
	again := get(t, "subscribe", url.Values{"topic": {topic}, "url": {story.Shop.URL("mysql/in")}})
	story.MustFail(t, again, "this url exists")

	gid, order := newGid(), story.Account(t, "mysql")
	story.Must(t, story.Shop.Open("postgres", order.Account, 100))
	msg := dtmcli.NewMsg(story.HTTP(), gid).AddTopic(topic, order)
	msg.WaitResult = true
	story.Must(t, msg.Submit())
	story.Same(t, story.Shop.Steps(gid), "action/01-01", "action/01-02")
	story.Has(t, "mysql", order, 130, 0)
	story.Has(t, "postgres", order, 130, 0)

	story.Must(t, get(t, "unsubscribe", url.Values{"topic": {topic}, "url": {story.Shop.URL("mysql/in")}}))
	gid = newGid()
	msg = dtmcli.NewMsg(story.HTTP(), gid).AddTopic(topic, order)
	msg.WaitResult = true
	story.Must(t, msg.Submit())
	story.Same(t, story.Shop.Steps(gid), "action/01")
	story.Has(t, "mysql", order, 130, 0)
	unknown := dtmcli.NewMsg(story.HTTP(), newGid()).AddTopic("nobody-listens", order)
	story.MustFail(t, unknown.Submit(), "topic not found")
}
