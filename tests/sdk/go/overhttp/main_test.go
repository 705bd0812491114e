// Package overhttp has the stories of dtm's Go client over HTTP.
package overhttp

import (
	"testing"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/workflow"
	"rushline.test/sdk/shop"
	"rushline.test/sdk/story"
)

func TestMain(m *testing.M) {
	story.Main(m, func() { workflow.InitHTTP(story.HTTP(), story.Shop.URL("workflow")) })
}

func newGid() string { return dtmcli.MustGenGid(story.HTTP()) }

// addMoves moves from store to store: out of the first, into the others.
func addMoves(saga *dtmcli.Saga, stores []string, orders []shop.Order) *dtmcli.Saga {
	for i, store := range stores {
		url := story.Shop.URL(store + "/in")
		if i == 0 {
			url = story.Shop.URL(store + "/out")
		}
		saga.Add(url, url+"-undo", orders[i])
	}
	return saga
}
