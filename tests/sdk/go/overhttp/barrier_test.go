package overhttp

import (
	"testing"

	"github.com/dtm-labs/client/dtmcli"
	"rushline.test/sdk/shop"
	"rushline.test/sdk/story"
)

// The branch did its work and its answer got lost: it is called again, and has its effect once.
func TestBarrierLostAnswer(t *testing.T) {
	t.Parallel()
	gid, orders := newGid(), story.Accounts(t, shop.Stores)
	for _, step := range []string{"action/01", "action/02", "action/03", "action/04"} {
		story.Shop.LoseAnswer(gid, step)
	}
	story.Must(t, addMoves(dtmcli.NewSaga(story.HTTP(), gid), shop.Stores, orders).Submit())
	story.WaitFor(t, gid, "succeed")
	if calls := len(story.Shop.Calls(gid)); calls != 8 {
		t.Fatalf("each is called twice: %v", story.Shop.Steps(gid))
	}
	story.Has(t, shop.Stores[0], orders[0], 70, 0)
	for i, store := range shop.Stores[1:] {
		story.Has(t, store, orders[i+1], 130, 0)
	}
}

// An action that arrives after its own compensation must do nothing any more.
func TestBarrierLateAction(t *testing.T) {
	t.Parallel()
	for _, store := range shop.Stores {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			gid, orders := newGid(), story.Accounts(t, []string{store})
			release := story.Shop.Hold(gid, "action/01")
			saga := addMoves(dtmcli.NewSaga(story.HTTP(), gid), []string{store}, orders)
			saga.RequestTimeout, saga.TimeoutToFail = 1, 1
			story.Must(t, saga.Submit())
			story.WaitFor(t, gid, "failed")
			release()
			story.WaitForFinished(t, gid, len(story.Shop.Calls(gid)))
			story.Has(t, store, orders[0], 100, 0)
		})
	}
}
