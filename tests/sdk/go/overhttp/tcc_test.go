package overhttp

import (
	"testing"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/go-resty/resty/v2"
	"rushline.test/sdk/shop"
	"rushline.test/sdk/story"
)

func init() {
	// Dies between its branches: one is tried, nobody decides.
	story.Death("between two tries", func(gid string) {
		store, order := story.DeathsOrder()
		undecided := func(tcc *dtmcli.Tcc) { tcc.TimeoutToFail = story.UndecidedS }
		_ = dtmcli.TccGlobalTransaction2(story.HTTP(), gid, undecided, func(tcc *dtmcli.Tcc) (*resty.Response, error) {
			answer, err := try(tcc, store+"/out", order)
			if err == nil {
				story.Die()
			}
			return answer, err
		})
	})
}

func try(tcc *dtmcli.Tcc, branch string, order shop.Order) (*resty.Response, error) {
	url := story.Shop.URL(branch)
	return tcc.CallBranch(order, url+"-try", url+"-confirm", url+"-cancel")
}

func TestTccConfirmed(t *testing.T) {
	t.Parallel()
	gid, orders := newGid(), story.Accounts(t, shop.SQLStores)
	waiting := func(tcc *dtmcli.Tcc) { tcc.WaitResult = true }
	err := dtmcli.TccGlobalTransaction2(story.HTTP(), gid, waiting, func(tcc *dtmcli.Tcc) (*resty.Response, error) {
		if answer, err := try(tcc, "mysql/out", orders[0]); err != nil {
			return answer, err
		}
		story.Has(t, "mysql", orders[0], 70, 30)
		return try(tcc, "postgres/in", orders[1])
	})
	story.Must(t, err)
	story.Same(t, story.Shop.Steps(gid), "try/01", "try/02", "confirm/02", "confirm/01")
	story.Has(t, "mysql", orders[0], 70, 0)
	story.Has(t, "postgres", orders[1], 130, 0)
	story.Same(t, story.Rows(t, gid), "prepared", "succeed", "prepared", "succeed")
}

func TestTccCancelled(t *testing.T) {
	t.Parallel()
	gid, orders := newGid(), story.Accounts(t, []string{"mongo", "postgres"})
	orders[1].Amount = 500
	err := dtmcli.TccGlobalTransaction(story.HTTP(), gid, func(tcc *dtmcli.Tcc) (*resty.Response, error) {
		if answer, err := try(tcc, "mongo/out", orders[0]); err != nil {
			return answer, err
		}
		return try(tcc, "postgres/out", orders[1])
	})
	story.MustFail(t, err, "too little")
	reason := story.WaitFor(t, gid, "failed")
	story.MustFail(t, story.Refused(reason), "too little")
	// The refused branch is cancelled as well; its barrier finds nothing to take back.
	story.Same(t, story.Shop.Steps(gid), "try/01", "try/02", "cancel/02", "cancel/01")
	story.Has(t, "mongo", orders[0], 100, 0)
	story.Has(t, "postgres", orders[1], 100, 0)
}

func TestTccNested(t *testing.T) {
	t.Parallel()
	gid, order := newGid(), story.Account(t, "mysql")
	story.Must(t, story.Shop.Open("postgres", order.Account, 100))
	err := dtmcli.TccGlobalTransaction(story.HTTP(), gid, func(tcc *dtmcli.Tcc) (*resty.Response, error) {
		url := story.Shop.URL("nested/")
		return tcc.CallBranch(order, url+"try", url+"confirm", url+"cancel")
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
	reason := story.WaitFor(t, gid, "failed")
	story.Same(t, []string{reason}, "Timeout after 3 seconds")
	story.Same(t, story.Shop.Steps(gid), "try/01", "cancel/01")
	story.Has(t, "postgres", order, 100, 0)
}
