package overhttp

import (
	"testing"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/go-resty/resty/v2"
	"rushline.test/sdk/shop"
	"rushline.test/sdk/story"
)

func init() {
	// Dies with one branch prepared in its database, and nobody deciding.
	story.Death("between two XA branches", func(gid string) {
		store, order := story.DeathsOrder()
		undecided := func(xa *dtmcli.Xa) { xa.TimeoutToFail = story.UndecidedS }
		_ = dtmcli.XaGlobalTransaction2(story.HTTP(), gid, undecided, func(xa *dtmcli.Xa) (*resty.Response, error) {
			answer, err := xa.CallBranch(order, story.Shop.URL(store+"/xa-out"))
			if err == nil {
				story.Die()
			}
			return answer, err
		})
	})
}

// Out of an account in MySQL, into one in PostgreSQL.
func xaOverBoth(gid string, orders []shop.Order) error {
	waiting := func(xa *dtmcli.Xa) { xa.WaitResult = true }
	return dtmcli.XaGlobalTransaction2(story.HTTP(), gid, waiting, func(xa *dtmcli.Xa) (*resty.Response, error) {
		if answer, err := xa.CallBranch(orders[1], story.Shop.URL("postgres/xa-in")); err != nil {
			return answer, err
		}
		return xa.CallBranch(orders[0], story.Shop.URL("mysql/xa-out"))
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
	story.MustFail(t, xaOverBoth(gid, orders), "too little")
	story.WaitFor(t, gid, "failed")
	// The refused branch was rolled back by its own service, and never registered.
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
