package overgrpc

import (
	"strings"
	"testing"

	"github.com/dtm-labs/client/dtmgrpc"
	"rushline.test/sdk/shop"
	"rushline.test/sdk/story"
)

func TestSagaOverAllStores(t *testing.T) {
	t.Parallel()
	gid, orders := newGid(), story.Accounts(t, shop.Stores)
	saga := addMoves(dtmgrpc.NewSagaGrpc(story.GRPC(), gid), shop.Stores, orders)
	saga.WaitResult = true
	story.Must(t, saga.Submit())
	story.Same(t, story.Shop.Steps(gid), "action/01", "action/02", "action/03", "action/04")
	story.Same(t, story.Rows(t, gid), "prepared", "succeed", "prepared", "succeed", "prepared", "succeed", "prepared", "succeed")
	story.Has(t, shop.Stores[0], orders[0], 70, 0)
	for i, store := range shop.Stores[1:] {
		story.Has(t, store, orders[i+1], 130, 0)
	}
}

func TestSagaRefused(t *testing.T) {
	t.Parallel()
	gid, orders := newGid(), story.Accounts(t, shop.Stores)
	saga := addMoves(dtmgrpc.NewSagaGrpc(story.GRPC(), gid), shop.Stores, orders)
	story.Shop.Tell(gid, "a", story.Refused("sold out"))
	story.Shop.Tell(gid, "undo", nil)
	addTold(saga, "a").WaitResult = true
	err := saga.Submit()
	decided(t, err)
	story.MustFail(t, err, "sold out")
	reason := story.WaitFor(t, gid, "failed")
	story.MustFail(t, story.Refused(reason), "sold out")
	story.Same(t, story.Shop.Steps(gid)[5:], "compensate/05", "compensate/04", "compensate/03", "compensate/02", "compensate/01")
	for i, store := range shop.Stores {
		story.Has(t, store, orders[i], 100, 0)
	}
}

// The second waits for the first; the third runs beside both.
func TestSagaConcurrentWithOrder(t *testing.T) {
	t.Parallel()
	gid, orders := newGid(), story.Accounts(t, []string{"mysql", "postgres", "mysql"})
	first, third := story.Shop.Hold(gid, "action/01"), story.Shop.Hold(gid, "action/03")
	saga := addMoves(dtmgrpc.NewSagaGrpc(story.GRPC(), gid), []string{"mysql", "postgres", "mysql"}, orders)
	story.Must(t, saga.EnableConcurrent().AddBranchOrder(1, []int{0}).Submit())
	story.WaitForStep(t, gid, "action/01", 1)
	story.WaitForStep(t, gid, "action/03", 1)
	third()
	first()
	story.WaitFor(t, gid, "succeed")
	steps := story.Shop.Steps(gid)
	story.Same(t, steps[2:], "action/02")
}

func TestSagaOngoingAndBroken(t *testing.T) {
	t.Parallel()
	gid := newGid()
	story.Shop.Tell(gid, "a", story.Ongoing, story.Broken, story.Ongoing, nil)
	story.Must(t, addTold(dtmgrpc.NewSagaGrpc(story.GRPC(), gid), "a").Submit())
	story.WaitFor(t, gid, "succeed")
	story.Same(t, story.Shop.Steps(gid), "action/01", "action/01", "action/01", "action/01")
}

func TestSagaRetryLimit(t *testing.T) {
	t.Parallel()
	gid := newGid()
	story.Shop.Tell(gid, "a", story.Broken)
	story.Shop.Tell(gid, "undo", nil)
	saga := addTold(dtmgrpc.NewSagaGrpc(story.GRPC(), gid), "a")
	saga.RetryLimit = 2
	story.Must(t, saga.Submit())
	reason := story.WaitFor(t, gid, "failed")
	story.Same(t, []string{reason}, "RetryCount is greater than RetryLimit, RetryLimit: 2")
	story.Same(t, story.Shop.Steps(gid), "action/01", "action/01", "action/01", "compensate/01")
}

func TestSagaTimeout(t *testing.T) {
	t.Parallel()
	gid := newGid()
	story.Shop.Tell(gid, "a", story.Ongoing)
	story.Shop.Tell(gid, "undo", nil)
	saga := addTold(dtmgrpc.NewSagaGrpc(story.GRPC(), gid), "a")
	saga.TimeoutToFail = 1
	story.Must(t, saga.Submit())
	story.Same(t, []string{story.WaitFor(t, gid, "failed")}, "Timeout after 1 seconds")
}

func TestSagaBranchHeaders(t *testing.T) {
	t.Parallel()
	gid := newGid()
	story.Shop.Tell(gid, "a", nil)
	headers := dtmgrpc.WithBranchHeaders(map[string]string{"x-of-the-caller": "kept"})
	saga := addTold(dtmgrpc.NewSagaGrpc(story.GRPC(), gid, headers), "a")
	saga.WaitResult = true
	story.Must(t, saga.Submit())
	story.Same(t, []string{story.Shop.Calls(gid)[0].Headers["x-of-the-caller"]}, "kept")
}

// gRPC is answered at the port of HTTP as well.
func TestSagaAtThePortOfHTTP(t *testing.T) {
	t.Parallel()
	gid, orders := newGid(), story.Accounts(t, shop.SQLStores)
	server := strings.TrimPrefix(strings.TrimSuffix(story.HTTP(), "/api/dtmsvr"), "http://")
	saga := addMoves(dtmgrpc.NewSagaGrpc(server, gid), shop.SQLStores, orders)
	saga.WaitResult = true
	story.Must(t, saga.Submit())
	story.Has(t, "postgres", orders[1], 130, 0)
}

// The branch did its work and its answer got lost: it is called again, and has its effect once.
func TestBarrierLostAnswer(t *testing.T) {
	t.Parallel()
	gid, orders := newGid(), story.Accounts(t, shop.Stores)
	for _, step := range []string{"action/01", "action/02", "action/03", "action/04"} {
		story.Shop.LoseAnswer(gid, step)
	}
	story.Must(t, addMoves(dtmgrpc.NewSagaGrpc(story.GRPC(), gid), shop.Stores, orders).Submit())
	story.WaitFor(t, gid, "succeed")
	if calls := len(story.Shop.Calls(gid)); calls != 8 {
		t.Fatalf("each is called twice: %v", story.Shop.Steps(gid))
	}
	story.Has(t, shop.Stores[0], orders[0], 70, 0)
	for i, store := range shop.Stores[1:] {
		story.Has(t, store, orders[i+1], 130, 0)
	}
}
