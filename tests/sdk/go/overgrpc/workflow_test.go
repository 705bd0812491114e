package overgrpc

import (
	"context"
	"database/sql"
	"encoding/json"
	"sync"
	"testing"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/workflow"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
	"rushline.test/sdk/shop"
	"rushline.test/sdk/story"
)

// input is what a workflow gets: an account in MySQL to take from, and one in PostgreSQL to pay into.
type input struct {
	From, To shop.Order
	Dies     bool
}

// patient workflows are not called back while they still run.
func patient(wf *workflow.Workflow) { wf.RetryInterval = 20 }

func hurried(wf *workflow.Workflow) { wf.RetryInterval = story.UndecidedS }

// branches is a connection of the workflow's own: what goes over it is recorded by the client's interceptor.
var branches = sync.OnceValues(func() (*grpc.ClientConn, error) {
	plain := grpc.WithTransportCredentials(insecure.NewCredentials())
	return grpc.Dial(story.Shop.GRPC, plain, grpc.WithUnaryInterceptor(workflow.Interceptor))
})

func call(ctx context.Context, branch string, order shop.Order) error {
	connection, err := branches()
	if err != nil {
		return err
	}
	return connection.Invoke(ctx, shop.MethodName(branch), shop.Message(order), &emptypb.Empty{})
}

// mixed is one local step, one gRPC call, and one XA branch.
func mixed(wf *workflow.Workflow, data []byte) ([]byte, error) {
	given := input{}
	if err := json.Unmarshal(data, &given); err != nil {
		return nil, err
	}
	wf.NewBranch().OnRollback(func(barrier *dtmcli.BranchBarrier) error {
		return story.Shop.Move("mysql", "out-undo", barrier, given.From)
	})
	if _, err := wf.Do(func(barrier *dtmcli.BranchBarrier) ([]byte, error) {
		return nil, story.Shop.Move("mysql", "out", barrier, given.From)
	}); err != nil {
		return nil, err
	}
	ctx := wf.NewBranchCtx()
	wf.OnRollback(func(*dtmcli.BranchBarrier) error { return call(wf.Context, "postgres/in-undo", given.To) })
	if err := call(ctx, "postgres/in", given.To); err != nil {
		return nil, err
	}
	if given.Dies && story.IsDeath() {
		story.Die()
	}
	branch := story.Shop.Xa("mysql")
	_, err := wf.NewBranch().DoXa(story.Shop.Conf("mysql"), func(db *sql.DB) ([]byte, error) {
		return nil, branch.Update(db, "out", given.From)
	})
	if err == nil {
		err = branch.Settle()
	}
	return []byte("receipt"), err
}

func init() {
	for name, custom := range map[string]func(*workflow.Workflow){"mixed": patient, "mixed in a hurry": hurried} {
		if err := workflow.Register2(name, mixed, custom); err != nil {
			panic(err)
		}
	}
	story.Death("in the middle of a workflow", func(gid string) {
		_, _ = workflow.Execute2("mixed in a hurry", gid, []byte(story.DeathInput()))
	})
}

func begin(t *testing.T, amount int, dies bool) (string, input, []byte) {
	orders := story.Accounts(t, shop.SQLStores)
	given := input{From: orders[0], To: orders[1], Dies: dies}
	given.From.Amount = amount
	data, err := json.Marshal(given)
	story.Must(t, err)
	return newGid(), given, data
}

// dtm's gRPC door leaves the stored result out: whoever asks for a workflow that is over gets nothing.
func TestWorkflowAndItsStoredResult(t *testing.T) {
	t.Parallel()
	gid, given, data := begin(t, 30, false)
	for range 2 {
		result, err := workflow.Execute2("mixed", gid, data)
		story.Must(t, err)
		story.Same(t, []string{string(result)}, "receipt")
		story.Has(t, "mysql", given.From, 40, 0) // by the local step, and by XA
		story.Has(t, "postgres", given.To, 130, 0)
		story.Same(t, story.Shop.Steps(gid), "action/02")
	}
}

func TestWorkflowRolledBack(t *testing.T) {
	t.Parallel()
	gid, given, data := begin(t, 60, false) // enough for the local step, and then no more for XA
	for range 2 {
		_, err := workflow.Execute2("mixed", gid, data)
		story.MustFail(t, err, "too little")
		story.Has(t, "mysql", given.From, 100, 0)
		story.Has(t, "postgres", given.To, 100, 0)
	}
	story.Same(t, []string{story.Query(t, gid).Status()}, "failed")
	story.Same(t, story.Shop.Steps(gid), "action/02", "rollback/02")
}

// Its client dies with two steps done; rushline calls back, and another one goes on behind them.
func TestWorkflowCrash(t *testing.T) {
	t.Parallel()
	gid, given, data := begin(t, 30, true)
	story.Crash(t, "in the middle of a workflow", gid, "SDK_INPUT="+string(data))
	story.WaitFor(t, gid, "succeed")
	story.Same(t, story.Shop.Steps(gid), "action/02") // the step that was done is not done again
	story.Has(t, "mysql", given.From, 40, 0)
	story.Has(t, "postgres", given.To, 130, 0)
}
