package overgrpc

import (
	"testing"

	"github.com/dtm-labs/client/dtmgrpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"rushline.test/sdk/shop"
	"rushline.test/sdk/story"
)

func init() {
	story.Death("between two tries", func(gid string) {
		store, order := story.DeathsOrder()
		undecided := func(tcc *dtmgrpc.TccGrpc) { tcc.TimeoutToFail = story.UndecidedS }
		_ = dtmgrpc.TccGlobalTransaction2(story.GRPC(), gid, undecided, func(tcc *dtmgrpc.TccGrpc) error {
			err := try(tcc, store+"/out", order)
			if err == nil {
				story.Die()
			}
			return err
		})
	})
	story.Death("between two XA branches", func(gid string) {
		store, order := story.DeathsOrder()
		undecided := func(xa *dtmgrpc.XaGrpc) { xa.TimeoutToFail = story.UndecidedS }
		_ = dtmgrpc.XaGlobalTransaction2(story.GRPC(), gid, undecided, func(xa *dtmgrpc.XaGrpc) error {
			err := xa.CallBranch(shop.Message(order), story.Shop.Method(store+"/xa-out"), &emptypb.Empty{})
			if err == nil {
				story.Die()
			}
			return err
		})
	})
}

func try(tcc *dtmgrpc.TccGrpc, branch string, order shop.Order) error {
	url := story.Shop.Method(branch)
	return tcc.CallBranch(shop.Message(order), url+"-try", url+"-confirm", url+"-cancel", &emptypb.Empty{})
}

func TestTccConfirmed(t *testing.T) {
	t.Parallel()
	gid, orders := newGid(), story.Accounts(t, shop.SQLStores)
	waiting := func(tcc *dtmgrpc.TccGrpc) { tcc.WaitResult = true }
	err := dtmgrpc.TccGlobalTransaction2(story.GRPC(), gid, waiting, func(tcc *dtmgrpc.TccGrpc) error {
		if err := try(tcc, "mysql/out", orders[0]); err != nil {
			return err
		}
		story.Has(t, "mysql", orders[0], 70, 30)
		return try(tcc, "postgres/in", orders[1])
	})
	story.Must(t, err)
	story.Same(t, story.Shop.Steps(gid), "try/01", "try/02", "confirm/02", "confirm/01")
	story.Has(t, "mysql", orders[0], 70, 0)
	story.Has(t, "postgres", orders[1], 130, 0)
}

func TestTccCancelled(t *testing.T) {
	t.Parallel()
	gid, orders := newGid(), story.Accounts(t, []string{"mongo", "postgres"})
	orders[1].Amount = 500
	err := dtmgrpc.TccGlobalTransaction(story.GRPC(), gid, func(tcc *dtmgrpc.TccGrpc) error {
		if err := try(tcc, "mongo/out", orders[0]); err != nil {
			return err
		}
		return try(tcc, "postgres/out", orders[1])
	})
	decided(t, err)
	reason := story.WaitFor(t, gid, "failed")
	story.Same(t, []string{reason}, err.Error())
	story.Same(t, story.Shop.Steps(gid), "try/01", "try/02", "cancel/02", "cancel/01")
	story.Has(t, "mongo", orders[0], 100, 0)
	story.Has(t, "postgres", orders[1], 100, 0)
}

func TestTccNested(t *testing.T) {
	t.Parallel()
	gid, order := newGid(), story.Account(t, "mysql")
	story.Must(t, story.Shop.Open("postgres", order.Account, 100))
	err := dtmgrpc.TccGlobalTransaction(story.GRPC(), gid, func(tcc *dtmgrpc.TccGrpc) error {
		url := story.Shop.Method("nested/")
		return tcc.CallBranch(shop.Message(order), url+"try", url+"confirm", url+"cancel", &emptypb.Empty{})
	})
	story.Must(t, err)
	story.WaitFor(t, gid, "succeed")
	story.Same(t, story.Shop.Steps(gid), "try/01", "try/0101", "try/0102", "confirm/0102", "confirm/0101", "confirm/01")
	story.Has(t, "mysql", order, 70, 0)
	story.Has(t, "postgres", order, 130, 0)
}

func TestTccCrash(t *testing.T) {
	t.Parallel()
	gid, order := newGid(), story.Account(t, "postgres")
	story.CrashWith(t, "between two tries", gid, "postgres", order)
	story.Same(t, []string{story.WaitFor(t, gid, "failed")}, "Timeout after 3 seconds")
	story.Same(t, story.Shop.Steps(gid), "try/01", "cancel/01")
	story.Has(t, "postgres", order, 100, 0)
}

// Into an account in PostgreSQL, out of one in MySQL.
func xaOverBoth(gid string, orders []shop.Order) error {
	waiting := func(xa *dtmgrpc.XaGrpc) { xa.WaitResult = true }
	return dtmgrpc.XaGlobalTransaction2(story.GRPC(), gid, waiting, func(xa *dtmgrpc.XaGrpc) error {
		into := story.Shop.Method("postgres/xa-in")
		if err := xa.CallBranch(shop.Message(orders[1]), into, &emptypb.Empty{}); err != nil {
			return err
		}
		return xa.CallBranch(shop.Message(orders[0]), story.Shop.Method("mysql/xa-out"), &emptypb.Empty{})
	})
}

func TestXaCommitted(t *testing.T) {
	t.Parallel()
	gid, orders := newGid(), story.Accounts(t, shop.SQLStores)
	story.Must(t, xaOverBoth(gid, orders))
	story.Same(t, story.Shop.Steps(gid), "action/01", "action/02", "commit/01", "commit/02")
	story.Has(t, "mysql", orders[0], 70, 0)
	story.Has(t, "postgres", orders[1], 130, 0)
}

func TestXaRolledBack(t *testing.T) {
	t.Parallel()
	gid, orders := newGid(), story.Accounts(t, shop.SQLStores)
	orders[0].Amount = 500
	decided(t, xaOverBoth(gid, orders))
	story.WaitFor(t, gid, "failed")
	story.Same(t, story.Shop.Steps(gid), "action/01", "action/02", "rollback/01")
	story.Has(t, "mysql", orders[0], 100, 0)
	story.Has(t, "postgres", orders[1], 100, 0)
}

func TestXaCrash(t *testing.T) {
	t.Parallel()
	for _, store := range shop.SQLStores {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			gid, order := newGid(), story.Account(t, store)
			story.CrashWith(t, "between two XA branches", gid, store, order)
			story.WaitFor(t, gid, "failed")
			story.Same(t, story.Shop.Steps(gid), "action/01", "rollback/01")
			story.Has(t, store, order, 100, 0)
		})
	}
}
