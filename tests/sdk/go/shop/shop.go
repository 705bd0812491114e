// Package shop has real services with branches of global transactions, over HTTP and gRPC, that move amounts between
// accounts in four kinds of store under the barriers of dtm's Go client.
//
// A branch is STORE/MOVE, such as mysql/out with mysql/out-undo as its compensation. Beside these there are told/NAME,
// which answers as a story tells it, and what XA, nested TCC and workflows need.
package shop

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/dtm-labs/client/dtmcli"
)

// holdMax is how long a held branch waits at most for its release.
const holdMax = 30 * time.Second

// Call is one that came in.
type Call struct {
	Branch  string // STORE/MOVE
	Step    string // op/branch_id, such as action/01
	At      time.Time
	Headers map[string]string
}

// Shop is one service at two addresses.
type Shop struct {
	*stores
	// HTTP is http://HOST:PORT, GRPC is HOST:PORT.
	HTTP, GRPC string

	listener net.Listener
	mutex    sync.Mutex
	calls    map[string][]Call        // by gid
	ended    map[string]int           // by gid: calls that were answered
	told     map[string][]error       // by name: answers in turn; the last one stays
	lost     map[string]bool          // gid and step: the work is done, the answer gets lost, once
	held     map[string]chan struct{} // gid and step: the work waits for its release
}

// Open starts it.
func Open() (*Shop, error) {
	stores, err := openStores()
	if err != nil {
		return nil, err
	}
	shop := &Shop{stores: stores, calls: map[string][]Call{}, ended: map[string]int{}, told: map[string][]error{},
		lost: map[string]bool{}, held: map[string]chan struct{}{}}
	if err := shop.serveHTTP(); err != nil {
		return nil, err
	}
	return shop, shop.serveGRPC()
}

// URL is where a branch is over HTTP: shop.URL("mysql/out").
func (s *Shop) URL(branch string) string { return s.HTTP + "/" + branch }

// Method is where a branch is over gRPC.
func (s *Shop) Method(branch string) string { return s.GRPC + MethodName(branch) }

// Tell says how told/NAME answers to this transaction: each in turn, the last one for ever. nil is success.
func (s *Shop) Tell(gid, name string, answers ...error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.told[gid+" "+name] = answers
}

// LoseAnswer has this step done and its first answer lost.
func (s *Shop) LoseAnswer(gid, step string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.lost[gid+" "+step] = true
}

// Hold has this step wait before its work until the function returned is called.
func (s *Shop) Hold(gid, step string) (release func()) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	gate := make(chan struct{})
	s.held[gid+" "+step] = gate
	return func() { close(gate) }
}

// Calls are those of a transaction, in their order.
func (s *Shop) Calls(gid string) []Call {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return append([]Call(nil), s.calls[gid]...)
}

// Steps are the op/branch_id of these.
func (s *Shop) Steps(gid string) []string {
	steps := []string{}
	for _, call := range s.Calls(gid) {
		steps = append(steps, call.Step)
	}
	return steps
}

// Finished counts the calls of a transaction that were answered, heard or not.
func (s *Shop) Finished(gid string) int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.ended[gid]
}

func (s *Shop) finish(gid string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.ended[gid]++
}

func (s *Shop) note(gid, branch, op, branchID string, headers map[string]string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.calls[gid] = append(s.calls[gid], Call{Branch: branch, Step: op + "/" + branchID, At: time.Now(), Headers: headers})
}

// answer does what a branch is for.
func (s *Shop) answer(store, move string, barrier *dtmcli.BranchBarrier, order Order) error {
	if store == "told" {
		return s.tellNext(barrier.Gid + " " + move)
	}
	if move == "query-prepared" {
		return s.QueryPrepared(store, barrier)
	}
	step := barrier.Gid + " " + barrier.Op + "/" + barrier.BranchID
	s.mutex.Lock()
	gate, lost := s.held[step], s.lost[step]
	delete(s.lost, step)
	s.mutex.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-time.After(holdMax):
			return errors.New("nobody releases " + step)
		}
	}
	err := s.Move(store, move, barrier, order)
	if err == nil && lost {
		return errors.New("the answer got lost")
	}
	return err
}

func (s *Shop) tellNext(name string) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	answers := s.told[name]
	if len(answers) == 0 {
		return fmt.Errorf("nobody told what %s answers", name)
	}
	if len(answers) > 1 {
		s.told[name] = answers[1:]
	}
	return answers[0]
}
