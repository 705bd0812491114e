// One branch call under a barrier of dtm's own Go client, on a store that a Rust service shares.
//
// usage: barrier STORE URL GID BRANCH OP CHANGE; says ran, skipped, failure or duplicated. OP query-prepared asks back.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/go-redis/redis/v8"
	_ "github.com/go-sql-driver/mysql"
	_ "github.com/lib/pq"
	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
)

const week = 7 * 86400

func main() {
	store, url, gid, branch, op := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	change, err := strconv.Atoi(os.Args[6])
	check(err)
	transType, ask := "saga", op == "query-prepared"
	if ask {
		op = "msg"
	}
	if op == "msg" {
		transType = "msg"
	}
	barrier, err := dtmcli.BarrierFrom(transType, gid, branch, op)
	check(err)
	ran := ask
	switch store {
	case "redis":
		options, e := redis.ParseURL(url)
		check(e)
		client := redis.NewClient(options)
		key := "amount:" + gid
		before := client.Get(client.Context(), key).Val()
		if ask {
			err = barrier.RedisQueryPrepared(client, week)
		} else {
			err = barrier.RedisCheckAdjustAmount(client, key, change, week)
			ran = err == nil && client.Get(client.Context(), key).Val() != before
		}
	case "mysql", "postgres":
		dtmcli.SetCurrentDBType(store)
		db, e := sql.Open(store, url)
		check(e)
		add := "update account set balance = balance + ? where id = ?"
		if store == "postgres" {
			add = "update account set balance = balance + $1 where id = $2"
		}
		if ask {
			err = barrier.QueryPrepared(db)
		} else {
			err = barrier.CallWithDB(db, func(tx *sql.Tx) error {
				ran = true
				_, err := tx.Exec(add, change, gid)
				return err
			})
		}
	case "mongo":
		client, e := mongo.Connect(context.Background(), options.Client().ApplyURI(url))
		check(e)
		if ask {
			err = barrier.MongoQueryPrepared(client)
		} else {
			err = barrier.MongoCall(client, func(session mongo.SessionContext) error {
				ran = true
				accounts := client.Database("rushline").Collection("account")
				_, err := accounts.UpdateOne(session, bson.M{"_id": gid}, bson.M{"$inc": bson.M{"balance": int64(change)}})
				return err
			})
		}
	}
	switch {
	case errors.Is(err, dtmcli.ErrFailure):
		fmt.Println("failure")
	case errors.Is(err, dtmcli.ErrDuplicated):
		fmt.Println("duplicated")
	case err != nil:
		log.Fatal(err)
	case ran:
		fmt.Println("ran")
	default:
		fmt.Println("skipped")
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
