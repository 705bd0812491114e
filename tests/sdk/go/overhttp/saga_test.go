package overhttp

import (
	"slices"
	"testing"

	"github.com/dtm-labs/client/dtmcli"
	"rushline.test/sdk/shop"
	"rushline.test/sdk/story"
)

func TestSagaOverAllStores(t *testing.T) {
	t.Parallel()
	gid, orders := newGid(), story.Accounts(t, shop.Stores)
	saga := addMoves(dtmcli.NewSaga(story.HTTP(), gid), shop.Stores, orders)
	saga.WaitResult = true
	story.Must(t, saga.Submit())
	story.Same(t, story.Shop.Steps(gid), "action/01", "action/02", "action/03", "action/04")
	story.Same(t, story.Rows(t, gid), "prepared", "succeed", "prepared", "succeed", "prepared", "succeed", "prepared", "succeed")
	story.Has(t, shop.Stores[0], orders[0], 70, 0)
	for i, store := range shop.Stores[1:] {
		story.Has(t, store, orders[i+1], 130, 0)
	}
}

// The last account has too little; its own compensation is called too, and its barrier finds nothing to undo.
func TestSagaRefused(t *testing.T) {
	t.Parallel()
	for _, last := range shop.Stores {
		stores := append(slices.DeleteFunc(slices.Clone(shop.Stores), func(store string) bool { return store == last }), last)
		gid, orders := newGid(), story.Accounts(t, stores)
		saga := addMoves(dtmcli.NewSaga(story.HTTP(), gid), stores[:3], orders)
		orders[3].Amount = 500
		url := story.Shop.URL(last + "/out")
		saga.Add(url, url+"-undo", orders[3])
		saga.WaitResult = true
		story.MustFail(t, saga.Submit(), "return failed")
		story.WaitFor(t, gid, "failed")
		story.Same(t, story.Shop.Steps(gid)[4:], "compensate/04", "compensate/03", "compensate/02", "compensate/01")
		for i, store := range stores {
			story.Has(t, store, orders[i], 100, 0)
		}
	}
}

// told adds a step that answers as it is told.
func addTold(saga *dtmcli.Saga, names ...string) *dtmcli.Saga {
	for _, name := range names {
		saga.Add(story.Shop.URL("told/"+name), story.Shop.URL("told/undo"), shop.Order{})
	}
	return saga
}

func TestSagaConcurrentWithOrder(t *testing.T) {
	t.Parallel()
	gid, orders := newGid(), story.Accounts(t, shop.Stores)
	// The last step goes after the first two, which wait for each other's release: they must run at once.
	first, second := story.Shop.Hold(gid, "action/01"), story.Shop.Hold(gid, "action/02")
	saga := addMoves(dtmcli.NewSaga(story.HTTP(), gid), shop.Stores, orders).SetConcurrent().AddBranchOrder(3, []int{0, 1})
	story.Must(t, saga.Submit())
	for _, step := range []string{"action/01", "action/02", "action/03"} {
		story.WaitForStep(t, gid, step, 1)
	}
	second()
	first()
	story.WaitFor(t, gid, "succeed")
	steps := story.Shop.Steps(gid)
	if len(steps) != 4 || steps[3] != "action/04" {
		t.Fatalf("the fourth comes after the first two: %v", steps)
	}
	story.Has(t, shop.Stores[3], orders[3], 130, 0)
}

func TestSagaConcurrentRefused(t *testing.T) {
	t.Parallel()
	gid, orders := newGid(), story.Accounts(t, shop.SQLStores)
	story.Shop.Tell(gid, "no", story.Refused("sold out"))
	story.Shop.Tell(gid, "undo", nil)
	saga := addMoves(dtmcli.NewSaga(story.HTTP(), gid), shop.SQLStores, orders)
	saga = addTold(saga, "no").SetConcurrent().AddBranchOrder(2, []int{0, 1})
	story.Must(t, saga.Submit())
	reason := story.WaitFor(t, gid, "failed")
	story.MustFail(t, story.Refused(reason), "sold out")
	for i, store := range shop.SQLStores {
		story.Has(t, store, orders[i], 100, 0)
	}
}

func TestSagaOngoingAndBroken(t *testing.T) {
	t.Parallel()
	gid := newGid()
	story.Shop.Tell(gid, "patience", story.Ongoing, story.Broken, story.Ongoing, nil)
	saga := addTold(dtmcli.NewSaga(story.HTTP(), gid), "patience")
	saga.WaitResult = true
	// As with dtm: a client that waits hears of the first pass only.
	story.MustFail(t, saga.Submit(), "wait result not return success")
	story.WaitFor(t, gid, "succeed")
	story.Same(t, story.Shop.Steps(gid), "action/01", "action/01", "action/01", "action/01")
}

func TestSagaRetryLimit(t *testing.T) {
	t.Parallel()
	gid := newGid()
	story.Shop.Tell(gid, "broken", story.Broken)
	story.Shop.Tell(gid, "undo", nil)
	saga := addTold(dtmcli.NewSaga(story.HTTP(), gid), "broken")
	saga.WaitResult, saga.RetryLimit = true, 2
	story.MustFail(t, saga.Submit(), "RetryCount is greater than RetryLimit, RetryLimit: 2")
	story.WaitFor(t, gid, "failed")
	story.Same(t, story.Shop.Steps(gid), "action/01", "action/01", "action/01", "compensate/01")
}

func TestSagaTimeout(t *testing.T) {
	t.Parallel()
	gid := newGid()
	story.Shop.Tell(gid, "never", story.Ongoing)
	story.Shop.Tell(gid, "undo", nil)
	saga := addTold(dtmcli.NewSaga(story.HTTP(), gid), "never")
	saga.TimeoutToFail = 1
	story.Must(t, saga.Submit())
	reason := story.WaitFor(t, gid, "failed")
	story.Same(t, []string{reason}, "Timeout after 1 seconds")
}

func TestSagaBranchHeaders(t *testing.T) {
	t.Parallel()
	gid := newGid()
	story.Shop.Tell(gid, "yes", nil)
	saga := addTold(dtmcli.NewSaga(story.HTTP(), gid), "yes")
	saga.WaitResult, saga.BranchHeaders = true, map[string]string{"x-of-the-caller": "kept"}
	story.Must(t, saga.Submit())
	story.Same(t, []string{story.Shop.Calls(gid)[0].Headers["x-of-the-caller"]}, "kept")
}

// A second submit changes nothing, also when it comes after the end: the first answer may have been lost.
func TestSagaSubmittedTwice(t *testing.T) {
	t.Parallel()
	gid := newGid()
	story.Shop.Tell(gid, "yes", nil)
	saga := addTold(dtmcli.NewSaga(story.HTTP(), gid), "yes")
	saga.WaitResult = true
	story.Must(t, saga.Submit())
	story.Must(t, saga.Submit())
	story.Same(t, story.Shop.Steps(gid), "action/01")
}

// JSON-RPC is a door of its own; the Go client takes it for a transaction whose protocol says so.
func TestSagaOverJSONRPC(t *testing.T) {
	t.Parallel()
	gid, orders := newGid(), story.Accounts(t, shop.SQLStores)
	saga := addMoves(dtmcli.NewSaga(story.JSONRPC(), gid), shop.SQLStores, orders)
	saga.Protocol, saga.WaitResult = "json-rpc", true
	story.Must(t, saga.Submit())
	story.Has(t, "mysql", orders[0], 70, 0)
	story.Has(t, "postgres", orders[1], 130, 0)
}
