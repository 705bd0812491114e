package overhttp

import (
	"database/sql"
	"encoding/json"
	"testing"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/workflow"
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

// mixed is one local step, one HTTP call, and one XA branch.
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
	url := story.Shop.URL("postgres/in")
	wf.NewBranch().OnRollback(func(*dtmcli.BranchBarrier) error {
		_, err := wf.NewRequest().SetBody(given.To).Post(url + "-undo")
		return err
	})
	if _, err := wf.NewRequest().SetBody(given.To).Post(url); err != nil {
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

func begin(t *testing.T) (string, input, []byte) {
	orders := story.Accounts(t, shop.SQLStores)
	given := input{From: orders[0], To: orders[1]}
	data, err := json.Marshal(given)
	story.Must(t, err)
	return newGid(), given, data
}

func TestWorkflow(t *testing.T) {
	t.Parallel()
	gid, given, data := begin(t)
	result, err := workflow.Execute2("mixed", gid, data)
	story.Must(t, err)
	story.Same(t, []string{string(result)}, "receipt")
	story.Same(t, []string{story.Query(t, gid).Status()}, "succeed")
	story.Has(t, "mysql", given.From, 40, 0) // by the local step, and by XA
	story.Has(t, "postgres", given.To, 130, 0)
	// Once more: nothing runs, the stored result comes back.
	result, err = workflow.Execute2("mixed", gid, data)
	story.Must(t, err)
	story.Same(t, []string{string(result)}, "receipt")
	story.Has(t, "mysql", given.From, 40, 0)
	story.Same(t, story.Shop.Steps(gid), "action/02")
}

func TestWorkflowRolledBack(t *testing.T) {
	t.Parallel()
	gid, given, _ := begin(t)
	given.From.Amount = 60 // enough for the local step, and then no more for XA
	data, err := json.Marshal(given)
	story.Must(t, err)
	_, err = workflow.Execute2("mixed", gid, data)
	story.MustFail(t, err, "too little")
	found := story.Query(t, gid)
	story.Same(t, []string{found.Status()}, "failed")
	story.MustFail(t, story.Refused(found.Transaction.RollbackReason), "too little")
	story.Has(t, "mysql", given.From, 100, 0)
	story.Has(t, "postgres", given.To, 100, 0)
	// Once more: it is heard that it failed.
	_, err = workflow.Execute2("mixed", gid, data)
	story.MustFail(t, err, "too little")
}

// Its client dies with two steps done; rushline calls back, and another one goes on behind them.
func TestWorkflowCrash(t *testing.T) {
	t.Parallel()
	gid, given, _ := begin(t)
	given.Dies = true
	data, err := json.Marshal(given)
	story.Must(t, err)
	story.Crash(t, "in the middle of a workflow", gid, "SDK_INPUT="+string(data))
	story.WaitFor(t, gid, "succeed")
	story.Has(t, "mysql", given.From, 40, 0)
	story.Has(t, "postgres", given.To, 130, 0)
	steps := story.Shop.Steps(gid)
	story.Same(t, steps[:1], "action/02")
	for _, step := range steps[1:] {
		// The step that was done is not done again; only the workflow itself is called.
		story.Same(t, []string{step}, "mixed in a hurry/00")
	}
}
