package overgrpc

import (
	"context"
	"testing"
	"time"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/dtmgrpc"
	"github.com/dtm-labs/client/dtmgrpc/dtmgimp"
	"github.com/dtm-labs/client/dtmgrpc/dtmgpb"
	"rushline.test/sdk/shop"
	"rushline.test/sdk/story"
)

func init() {
	story.Death("after the commit", func(gid string) {
		store, order := story.DeathsOrder()
		twice := shop.Order{Account: order.Account, Amount: 2 * order.Amount}
		msg := dtmgrpc.NewMsgGrpc(story.GRPC(), gid).Add(story.Shop.Method(store+"/out"), shop.Message(twice))
		msg.TimeoutToFail = story.UndecidedS
		_ = msg.DoAndSubmit(queryPrepared(store), func(barrier *dtmcli.BranchBarrier) error {
			if err := story.Shop.Move(store, "out", barrier, order); err != nil {
				return err
			}
			story.Die()
			return nil
		})
	})
	story.Death("before the commit", func(gid string) {
		store, order := story.DeathsOrder()
		msg := dtmgrpc.NewMsgGrpc(story.GRPC(), gid).Add(story.Shop.Method(store+"/in"), shop.Message(order))
		msg.TimeoutToFail = 1
		_ = msg.DoAndSubmit(queryPrepared(store), func(*dtmcli.BranchBarrier) error {
			story.Die()
			return nil
		})
	})
}

func queryPrepared(store string) string { return story.Shop.Method(store + "/query-prepared") }

func TestMessagePreparedAndSubmitted(t *testing.T) {
	t.Parallel()
	gid, orders := newGid(), story.Accounts(t, shop.Stores)
	msg := dtmgrpc.NewMsgGrpc(story.GRPC(), gid)
	for i, store := range shop.Stores {
		msg.Add(story.Shop.Method(store+"/in"), shop.Message(orders[i]))
	}
	story.Must(t, msg.Prepare(queryPrepared("mysql")))
	story.Same(t, []string{story.Query(t, gid).Status()}, "prepared")
	msg.WaitResult = true
	story.Must(t, msg.Submit())
	for i, store := range shop.Stores {
		story.Has(t, store, orders[i], 130, 0)
	}
}

func TestMessageWithLocalWork(t *testing.T) {
	t.Parallel()
	for _, store := range shop.Stores {
		gid, orders := newGid(), story.Accounts(t, []string{store, "postgres"})
		msg := dtmgrpc.NewMsgGrpc(story.GRPC(), gid).Add(story.Shop.Method("postgres/in"), shop.Message(orders[1]))
		err := msg.DoAndSubmit(queryPrepared(store), func(barrier *dtmcli.BranchBarrier) error {
			return story.Shop.Move(store, "out", barrier, orders[0])
		})
		story.Must(t, err)
		story.WaitFor(t, gid, "succeed")
		story.Has(t, store, orders[0], 70, 0)
		story.Has(t, "postgres", orders[1], 130, 0)
	}
}

func TestMessageRefused(t *testing.T) {
	t.Parallel()
	gid, orders := newGid(), story.Accounts(t, shop.SQLStores)
	orders[0].Amount = 500
	msg := dtmgrpc.NewMsgGrpc(story.GRPC(), gid).Add(story.Shop.Method("postgres/in"), shop.Message(orders[1]))
	err := msg.DoAndSubmit(queryPrepared("mysql"), func(barrier *dtmcli.BranchBarrier) error {
		return story.Shop.Move("mysql", "out", barrier, orders[0])
	})
	story.MustFail(t, err, "too little")
	story.WaitFor(t, gid, "failed")
	decided(t, msg.Submit())
	story.Has(t, "postgres", orders[1], 100, 0)
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
			story.Has(t, store, order, 100-order.Amount-2*order.Amount, 0)
		})
	}
}

func TestMessageCrashBeforeCommit(t *testing.T) {
	t.Parallel()
	gid, order := newGid(), story.Account(t, "postgres")
	story.CrashWith(t, "before the commit", gid, "postgres", order)
	story.WaitFor(t, gid, "failed")
	story.Same(t, story.Shop.Steps(gid), "msg/00")
	story.Has(t, "postgres", order, 100, 0)
}

func TestMessageDelayed(t *testing.T) {
	t.Parallel()
	gid, order := newGid(), story.Account(t, "mysql")
	submitted := time.Now()
	msg := dtmgrpc.NewMsgGrpc(story.GRPC(), gid).Add(story.Shop.Method("mysql/in"), shop.Message(order)).SetDelay(1)
	story.Must(t, msg.Submit())
	story.WaitFor(t, gid, "succeed")
	if waited := story.Shop.Calls(gid)[0].At.Sub(submitted); waited < time.Second {
		t.Fatalf("called after %v already", waited)
	}
}

// Topics by their gRPC calls; the store is full of other keys, among which dtm loses them.
func TestMessageToTopics(t *testing.T) {
	t.Parallel()
	server, topic := dtmgimp.MustGetDtmClient(story.GRPC()), "paid-"+newGid()
	for _, store := range shop.SQLStores {
		url := story.Shop.Method(store + "/in")
		_, err := server.Subscribe(context.Background(), &dtmgpb.DtmTopicRequest{Topic: topic, URL: url, Remark: store})
		story.Must(t, err)
	}
	gid, order := newGid(), story.Account(t, "mysql")
	story.Must(t, story.Shop.Open("postgres", order.Account, 100))
	msg := dtmgrpc.NewMsgGrpc(story.GRPC(), gid).AddTopic(topic, shop.Message(order))
	msg.WaitResult = true
	story.Must(t, msg.Submit())
	story.Same(t, story.Shop.Steps(gid), "action/01-01", "action/01-02")
	story.Has(t, "postgres", order, 130, 0)

	_, err := server.Unsubscribe(context.Background(), &dtmgpb.DtmTopicRequest{Topic: topic, URL: story.Shop.Method("mysql/in")})
	story.Must(t, err)
	_, err = server.DeleteTopic(context.Background(), &dtmgpb.DtmTopicRequest{Topic: topic})
	story.Must(t, err)
	gone := dtmgrpc.NewMsgGrpc(story.GRPC(), newGid()).AddTopic(topic, shop.Message(order))
	story.MustFail(t, gone.Submit(), "topic not found")
}
