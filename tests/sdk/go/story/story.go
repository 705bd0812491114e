// Package story is what the stories of both doors stand on: rushline's addresses, what it says of a transaction, and
// programs that die in the middle.
package story

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/logger"
	"rushline.test/sdk/shop"
)

const (
	// endWaitMax is longer than any transaction of a story takes on a busy machine.
	endWaitMax = 60 * time.Second
	pollEvery  = 20 * time.Millisecond
	// UndecidedS is after how many seconds rushline looks after what a dead program left: longer than it lives.
	UndecidedS = 3
	// crashed is what a program exits with that dies on purpose.
	crashed = 86
)

// Shop has the branches; it is one for all stories of a program.
var Shop *shop.Shop

// HTTP is what the client wants to know of the server: http://HOST:PORT/api/dtmsvr.
func HTTP() string { return os.Getenv("RUSHLINE_HTTP") + "/api/dtmsvr" }

// JSONRPC is the same for that protocol.
func JSONRPC() string { return os.Getenv("RUSHLINE_HTTP") + "/api/json-rpc" }

// GRPC is HOST:PORT.
func GRPC() string { return os.Getenv("RUSHLINE_GRPC") }

// deaths are the programs that Crash can run, by name.
var deaths = map[string]func(gid string){}

// Death names a program that is to die: it must call Die.
func Death(name string, program func(gid string)) { deaths[name] = program }

// CrashWith is Crash for a program that moves an amount of an account.
func CrashWith(t *testing.T, program, gid, store string, order shop.Order) {
	t.Helper()
	Crash(t, program, gid, "SDK_STORE="+store, "SDK_ACCOUNT="+order.Account, fmt.Sprintf("SDK_AMOUNT=%d", order.Amount))
}

// DeathsOrder is what CrashWith gave.
func DeathsOrder() (store string, order shop.Order) {
	amount, _ := strconv.Atoi(os.Getenv("SDK_AMOUNT"))
	return os.Getenv("SDK_STORE"), shop.Order{Account: os.Getenv("SDK_ACCOUNT"), Amount: amount}
}

// IsDeath tells whether this is a program that is to die.
func IsDeath() bool { return os.Getenv("SDK_DEATH") != "" }

// DeathInput is what it was given beside the gid.
func DeathInput() string { return os.Getenv("SDK_INPUT") }

// Die is kill -9 from inside: nothing deferred runs.
func Die() { os.Exit(crashed) }

// Main is TestMain: it runs the stories, or dies as another process's Crash wants it. begin readies the shop further.
func Main(m *testing.M, begin func()) {
	logger.InitLog("fatal")
	for _, name := range []string{"RUSHLINE_HTTP", "SDK_MYSQL", "SDK_POSTGRES", "SDK_REDIS", "SDK_MONGO"} {
		if os.Getenv(name) == "" {
			fmt.Fprintf(os.Stderr, "%s is not set\nhint: these stories are run by cargo test sdk\n", name)
			os.Exit(1)
		}
	}
	var err error
	if Shop, err = shop.Open(); err != nil {
		fmt.Fprintln(os.Stderr, "the shop does not open:", err)
		os.Exit(1)
	}
	if program := os.Getenv("SDK_DEATH"); IsDeath() {
		// The branches are those of the process that watches this one die.
		Shop.HTTP, Shop.GRPC = os.Getenv("SDK_SHOP_HTTP"), os.Getenv("SDK_SHOP_GRPC")
		begin()
		deaths[program](os.Getenv("SDK_GID"))
		fmt.Fprintln(os.Stderr, program, "was to die, and did not")
		os.Exit(1)
	}
	begin()
	Shop.Serve()
	os.Exit(m.Run())
}

// Crash runs the program of that name in a process of its own, and watches it die.
func Crash(t *testing.T, program, gid string, variables ...string) {
	t.Helper()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), "SDK_DEATH="+program, "SDK_GID="+gid, "SDK_SHOP_HTTP="+Shop.HTTP,
		"SDK_SHOP_GRPC="+Shop.GRPC)
	command.Env = append(command.Env, variables...)
	output, err := command.CombinedOutput()
	if command.ProcessState.ExitCode() != crashed {
		t.Fatalf("%s: %v\n%s", program, err, output)
	}
}

// Transaction is what rushline says of one.
type Transaction struct {
	Transaction *struct {
		Status         string
		RollbackReason string `json:"rollback_reason"`
		Result         string
	}
	Branches []struct {
		BranchID string `json:"branch_id"`
		Op       string
		Status   string
	}
}

// Status is empty for one that is not there.
func (found Transaction) Status() string {
	if found.Transaction == nil {
		return ""
	}
	return found.Transaction.Status
}

// Query asks for a transaction.
func Query(t *testing.T, gid string) Transaction {
	t.Helper()
	answer, err := http.Get(HTTP() + "/query?gid=" + url.QueryEscape(gid))
	Must(t, err)
	defer answer.Body.Close()
	found := Transaction{}
	Must(t, json.NewDecoder(answer.Body).Decode(&found))
	return found
}

// WaitFor waits until the transaction has this status, and tells the reason of its rollback.
func WaitFor(t *testing.T, gid, status string) string {
	t.Helper()
	for deadline := time.Now().Add(endWaitMax); ; time.Sleep(pollEvery) {
		found := Query(t, gid)
		if found.Status() == status {
			return found.Transaction.RollbackReason
		}
		over := found.Status() == "succeed" || found.Status() == "failed"
		if over || time.Now().After(deadline) {
			t.Fatalf("%s does not become %s: %+v; calls: %v", gid, status, found, Shop.Steps(gid))
		}
	}
}

// WaitForStep waits until the shop was called for this step as often.
func WaitForStep(t *testing.T, gid, step string, times int) {
	t.Helper()
	for deadline := time.Now().Add(endWaitMax); ; time.Sleep(pollEvery) {
		count := 0
		for _, found := range Shop.Steps(gid) {
			if found == step {
				count++
			}
		}
		if count >= times {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not %d calls of %s: %v", gid, times, step, Shop.Steps(gid))
		}
	}
}

// WaitForFinished waits until the shop has answered so many calls.
func WaitForFinished(t *testing.T, gid string, count int) {
	t.Helper()
	for deadline := time.Now().Add(endWaitMax); Shop.Finished(gid) < count; time.Sleep(pollEvery) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: %d answered, not %d: %v", gid, Shop.Finished(gid), count, Shop.Steps(gid))
		}
	}
}

// Rows are the statuses of the branches, in their order.
func Rows(t *testing.T, gid string) []string {
	t.Helper()
	rows := []string{}
	for _, branch := range Query(t, gid).Branches {
		rows = append(rows, branch.Status)
	}
	return rows
}

// Account opens one with 100 in it that no other story has.
func Account(t *testing.T, store string) shop.Order {
	t.Helper()
	name := fmt.Sprintf("%s-%d", strings.ReplaceAll(t.Name(), "/", "-"), time.Now().UnixNano())
	name = name[max(0, len(name)-64):]
	Must(t, Shop.Open(store, name, 100))
	return shop.Order{Account: name, Amount: 30}
}

// Accounts opens one in each store.
func Accounts(t *testing.T, stores []string) []shop.Order {
	t.Helper()
	orders := []shop.Order{}
	for _, store := range stores {
		orders = append(orders, Account(t, store))
	}
	return orders
}

// Has checks what is in an account, free and held.
func Has(t *testing.T, store string, order shop.Order, balance, held int) {
	t.Helper()
	gotBalance, gotHeld, err := Shop.Balance(store, order.Account)
	Must(t, err)
	if gotBalance != balance || gotHeld != held {
		t.Fatalf("%s %s has %d and holds %d, not %d and %d", store, order.Account, gotBalance, gotHeld, balance, held)
	}
}

// Same checks two lists.
func Same(t *testing.T, got []string, wanted ...string) {
	t.Helper()
	if !slices.Equal(got, wanted) {
		t.Fatalf("got %v, not %v", got, wanted)
	}
}

// Must checks that nothing went wrong.
func Must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// MustFail checks that an error came, with this text in it.
func MustFail(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Fatalf("an error with %q was to come, not %v", text, err)
	}
}

// Refused is a definite no with these words; Ongoing asks for patience; Broken is anything else.
func Refused(words string) error { return fmt.Errorf("%s. %w", words, dtmcli.ErrFailure) }

var (
	Ongoing = dtmcli.ErrOngoing
	Broken  = fmt.Errorf("something broke")
)
