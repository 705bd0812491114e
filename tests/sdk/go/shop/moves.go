package shop

import (
	"database/sql"
	"errors"
	"fmt"

	"github.com/dtm-labs/client/dtmcli"
	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
)

// Order is the payload of a branch: so much of this account.
type Order struct {
	Account string `json:"account"`
	Amount  int    `json:"amount"`
}

// moves says what each branch does to an account: times the amount of the order.
var moves = map[string]struct{ balance, held int }{
	"out": {-1, 0}, "out-undo": {1, 0},
	"in": {1, 0}, "in-undo": {-1, 0},
	"out-try": {-1, 1}, "out-confirm": {0, -1}, "out-cancel": {1, -1},
	"in-try": {0, 0}, "in-confirm": {1, 0}, "in-cancel": {0, 0},
}

var errTooLittle = fmt.Errorf("too little in the account. %w", dtmcli.ErrFailure)

// Move does a branch's work under the client's own barrier for this store.
func (s *stores) Move(store, move string, barrier *dtmcli.BranchBarrier, order Order) error {
	change, known := moves[move]
	if !known {
		return errors.New("nobody knows the move " + move)
	}
	balance, held := change.balance*order.Amount, change.held*order.Amount
	switch store {
	case "redis":
		return barrier.RedisCheckAdjustAmount(s.redis, order.Account, balance, BarrierKeptS)
	case "mongo":
		return barrier.MongoCall(s.mongo, func(session mongo.SessionContext) error {
			enough := bson.M{"_id": order.Account, "balance": bson.M{"$gte": -balance}}
			update := bson.M{"$inc": bson.M{"balance": balance, "held": held}}
			result, err := s.accounts().UpdateOne(session, enough, update)
			if err == nil && result.MatchedCount == 0 {
				return errTooLittle
			}
			return err
		})
	default:
		barrier.DBType = store
		return barrier.CallWithDB(s.sql[store], func(tx *sql.Tx) error {
			return update(tx, order.Account, balance, held)
		})
	}
}

type executes interface {
	Exec(query string, args ...any) (sql.Result, error)
}

// update changes an account that must not fall below nothing.
func update(db executes, account string, balance, held int) error {
	// Without parameters: the same text for both databases.
	statement := fmt.Sprintf("update account set balance = balance + %d, held = held + %d where name = '%s' and balance + %d >= 0",
		balance, held, account, balance)
	result, err := db.Exec(statement)
	if err != nil {
		return err
	}
	changed, err := result.RowsAffected()
	if err == nil && changed == 0 && (balance != 0 || held != 0) {
		return errTooLittle
	}
	return err
}

// QueryPrepared answers the question whether a message's local work was done.
func (s *stores) QueryPrepared(store string, barrier *dtmcli.BranchBarrier) error {
	switch store {
	case "redis":
		return barrier.RedisQueryPrepared(s.redis, BarrierKeptS)
	case "mongo":
		return barrier.MongoQueryPrepared(s.mongo)
	default:
		barrier.DBType = store
		return barrier.QueryPrepared(s.sql[store])
	}
}
