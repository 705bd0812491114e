package gozero

import (
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/dtmgrpc"
	"github.com/dtm-labs/dtmdriver"
	_ "github.com/dtm-labs/dtmdriver-gozero"
	"github.com/zeromicro/go-zero/core/discov"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Longer than anything here takes, on a busy machine.
const within = 60 * time.Second

var (
	etcd           = os.Getenv("SDK_ETCD")
	trans, account *Branches
	// As configuration gives them, with whatever form this version of go-zero has.
	transTarget, accountTarget string
	// The coordinator, found in etcd like any other service: both words for the same thing.
	servers = []string{"etcd://" + etcd + "/dtmservice", "discov://" + etcd + "/dtmservice"}
)

func TestMain(m *testing.M) {
	if etcd == "" {
		fmt.Println("SDK_ETCD is not set: cargo test --test it gozero starts these")
		os.Exit(1)
	}
	if err := dtmdriver.Use("dtm-driver-gozero"); err != nil {
		panic(err)
	}
	trans, _ = Serve(etcd, address(), "trans.rpc")
	account, _ = Serve(etcd, address(), "account.rpc")
	transTarget, accountTarget = Target(etcd, "trans.rpc"), Target(etcd, "account.rpc")
	fmt.Println("go-zero's own form of a target:", transTarget)
	for _, key := range []string{"dtmservice", "trans.rpc", "account.rpc"} {
		registered(key)
	}
	os.Exit(m.Run())
}

// An address that nobody listens on.
func address() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// Waits until go-zero itself finds an instance.
func registered(key string) {
	subscriber, err := discov.NewSubscriber([]string{etcd}, key)
	if err != nil {
		panic(err)
	}
	for deadline := time.Now().Add(within); len(subscriber.Values()) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			panic("go-zero finds no " + key + " in etcd")
		}
	}
}

func url(target, method string) string { return target + "/" + Service + "/" + method }

func expect(t *testing.T, what string, branches *Branches, gid string, wanted ...string) {
	t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(10 * time.Millisecond) {
		found := branches.Calls(gid)
		if len(wanted) == 0 && len(found) == 0 || reflect.DeepEqual(found, wanted) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s of %s: calls %v, wanted %v", what, gid, found, wanted)
		}
	}
}

// Both ways to the coordinator, each with a gid of its own.
func each(t *testing.T, story func(t *testing.T, server, gid string)) {
	for _, server := range servers {
		word := strings.SplitN(server, ":", 2)[0]
		t.Run(word, func(t *testing.T) { story(t, server, dtmgrpc.MustGenGid(server)) })
	}
}

func TestSagaSucceeds(t *testing.T) {
	each(t, func(t *testing.T, server, gid string) {
		saga := dtmgrpc.NewSagaGrpc(server, gid).
			Add(url(transTarget, "Out"), url(transTarget, "OutUndo"), wrapperspb.Int64(30)).
			Add(url(accountTarget, "In"), url(accountTarget, "InUndo"), wrapperspb.Int64(30))
		saga.WaitResult = true
		if err := saga.Submit(); err != nil {
			t.Fatal(err)
		}
		expect(t, "trans", trans, gid, "Out")
		expect(t, "account", account, gid, "In")
	})
}

func TestSagaIsCompensated(t *testing.T) {
	each(t, func(t *testing.T, server, gid string) {
		account.Refuse(gid, "In")
		saga := dtmgrpc.NewSagaGrpc(server, gid).
			Add(url(transTarget, "Out"), url(transTarget, "OutUndo"), wrapperspb.Int64(30)).
			Add(url(accountTarget, "In"), url(accountTarget, "InUndo"), wrapperspb.Int64(30))
		saga.WaitResult = true
		if err := saga.Submit(); err == nil {
			t.Fatal("a refused saga must be an error")
		}
		expect(t, "trans", trans, gid, "Out", "OutUndo")
		expect(t, "account", account, gid, "In", "InUndo")
	})
}

func TestMessage(t *testing.T) {
	each(t, func(t *testing.T, server, gid string) {
		msg := dtmgrpc.NewMsgGrpc(server, gid).Add(url(accountTarget, "In"), wrapperspb.Int64(30))
		msg.WaitResult = true
		err := msg.DoAndSubmit(url(transTarget, "QueryPrepared"), func(*dtmcli.BranchBarrier) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "account", account, gid, "In")
	})
}

// The program "dies" between its local step and its submit: it is asked at an address in etcd.
func TestMessageIsAskedBack(t *testing.T) {
	each(t, func(t *testing.T, server, gid string) {
		msg := dtmgrpc.NewMsgGrpc(server, gid).Add(url(accountTarget, "In"), wrapperspb.Int64(30))
		msg.TimeoutToFail = 1
		if err := msg.Prepare(url(transTarget, "QueryPrepared")); err != nil {
			t.Fatal(err)
		}
		expect(t, "trans", trans, gid, "QueryPrepared")
		expect(t, "account", account, gid, "In")
	})
}

// The program calls a try itself, and dtm's SDK reads no address of go-zero 1.10.2 and later; its older form it does,
// and go-zero still takes it. The second phase is called by the coordinator, which reads both.
func tryURL() string { return url("etcd://"+etcd+"/account.rpc", "InTry") }

func TestTccSucceeds(t *testing.T) {
	each(t, func(t *testing.T, server, gid string) {
		err := dtmgrpc.TccGlobalTransaction(server, gid, func(tcc *dtmgrpc.TccGrpc) error {
			return tcc.CallBranch(wrapperspb.Int64(30), tryURL(), url(accountTarget, "InConfirm"), url(accountTarget, "InCancel"), new(emptypb.Empty))
		})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "account", account, gid, "InTry", "InConfirm")
	})
}

func TestTccIsCancelled(t *testing.T) {
	each(t, func(t *testing.T, server, gid string) {
		refused := errors.New("changed my mind")
		err := dtmgrpc.TccGlobalTransaction(server, gid, func(tcc *dtmgrpc.TccGrpc) error {
			err := tcc.CallBranch(wrapperspb.Int64(30), tryURL(), url(accountTarget, "InConfirm"), url(accountTarget, "InCancel"), new(emptypb.Empty))
			if err != nil {
				return err
			}
			return refused
		})
		if !errors.Is(err, refused) {
			t.Fatal(err)
		}
		expect(t, "account", account, gid, "InTry", "InCancel")
	})
}

// An instance that starts meanwhile gets its share, and one that go-zero stops gets no more; nothing fails.
func TestInstancesComeAndGo(t *testing.T) {
	server := servers[0]
	first, _ := Serve(etcd, address(), "many.rpc")
	registered("many.rpc")
	target := Target(etcd, "many.rpc")
	saga := func() string {
		gid := dtmgrpc.MustGenGid(server)
		saga := dtmgrpc.NewSagaGrpc(server, gid).Add(url(target, "Out"), url(target, "OutUndo"), wrapperspb.Int64(1))
		saga.WaitResult = true
		if err := saga.Submit(); err != nil {
			t.Fatal(err)
		}
		return gid
	}
	expect(t, "first", first, saga(), "Out")
	second, serving := Serve(etcd, address(), "many.rpc")
	for deadline := time.Now().Add(within); len(second.Calls(saga())) == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the second instance is never called")
		}
	}
	serving.Stop()
	for i := 0; i < 20; i++ {
		saga() // each succeeds, whoever is asked
	}
}
