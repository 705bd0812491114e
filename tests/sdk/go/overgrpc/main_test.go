// Package overgrpc has the stories of dtm's Go client over gRPC: to the server, and from it to the branches.
package overgrpc

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/dtmgrpc"
	"github.com/dtm-labs/client/workflow"
	"google.golang.org/grpc"
	"rushline.test/sdk/shop"
	"rushline.test/sdk/story"
)

func TestMain(m *testing.M) {
	if story.GRPC() == "" {
		fmt.Fprintln(os.Stderr, "RUSHLINE_GRPC is not set")
		os.Exit(1)
	}
	story.Main(m, func() {
		server := shop.Server
		if story.IsDeath() {
			server = grpc.NewServer() // it answers nothing: rushline calls the one that watches it die
		}
		workflow.InitGrpc(story.GRPC(), story.Shop.GRPC, server)
	})
}

func newGid() string { return dtmgrpc.MustGenGid(story.GRPC()) }

// addMoves moves from store to store: out of the first, into the others.
func addMoves(saga *dtmgrpc.SagaGrpc, stores []string, orders []shop.Order) *dtmgrpc.SagaGrpc {
	for i, store := range stores {
		url := story.Shop.Method(store + "/in")
		if i == 0 {
			url = story.Shop.Method(store + "/out")
		}
		saga.Add(url, url+"-undo", shop.Message(orders[i]))
	}
	return saga
}

// addTold adds steps that answer as they are told.
func addTold(saga *dtmgrpc.SagaGrpc, names ...string) *dtmgrpc.SagaGrpc {
	for _, name := range names {
		saga.Add(story.Shop.Method("told/"+name), story.Shop.Method("told/undo"), shop.Message(shop.Order{}))
	}
	return saga
}

// decided checks that an error is a definite no, as the client's own mapping sees it.
func decided(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(dtmgrpc.GrpcError2DtmError(err), dtmcli.ErrFailure) {
		t.Fatalf("a definite no was to come, not %v", err)
	}
}
