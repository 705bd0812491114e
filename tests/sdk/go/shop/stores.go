package shop

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/go-redis/redis/v8"
	_ "github.com/go-sql-driver/mysql"
	_ "github.com/lib/pq"
	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
)

// Stores are the four kinds of store that the client has a barrier for.
var Stores = []string{"mysql", "postgres", "redis", "mongo"}

// SQLStores are those of them that take part in XA.
var SQLStores = []string{"mysql", "postgres"}

// BarrierKeptS is how long a barrier stays in Redis: longer than any story lasts.
const BarrierKeptS = 3600

type stores struct {
	sql   map[string]*sql.DB
	conf  map[string]dtmcli.DBConf
	redis *redis.Client
	mongo *mongo.Client
}

// The barrier's tables as dtm's documentation gives them, and accounts beside them.
var tables = map[string][]string{
	"mysql": {
		`create database if not exists dtm_barrier`,
		`create table if not exists dtm_barrier.barrier (
			id bigint auto_increment primary key, trans_type varchar(45) default '', gid varchar(128) default '',
			branch_id varchar(128) default '', op varchar(45) default '', barrier_id varchar(45) default '',
			reason varchar(45) default '', create_time datetime default now(), update_time datetime default now(),
			unique key uniq_barrier (gid, branch_id, op, barrier_id)) engine=InnoDB`,
		`create table if not exists account (name varchar(64) primary key, balance bigint not null, held bigint not null)`,
	},
	"postgres": {
		`create schema if not exists dtm_barrier`,
		`create table if not exists dtm_barrier.barrier (
			id bigserial primary key, trans_type varchar(45) default '', gid varchar(128) default '',
			branch_id varchar(128) default '', op varchar(45) default '', barrier_id varchar(45) default '',
			reason varchar(45) default '', create_time timestamptz default now(), update_time timestamptz default now(),
			constraint uniq_barrier unique (gid, branch_id, op, barrier_id))`,
		`create table if not exists account (name varchar(64) primary key, balance bigint not null, held bigint not null)`,
	},
}

// openStores connects to the stores that the environment names, and makes their tables.
func openStores() (*stores, error) {
	s := &stores{sql: map[string]*sql.DB{}, conf: map[string]dtmcli.DBConf{}}
	for _, name := range SQLStores {
		conf, err := dbConf(name, os.Getenv("SDK_"+strings.ToUpper(name)))
		if err != nil {
			return nil, err
		}
		db, err := sql.Open(name, dsn(conf))
		if err != nil {
			return nil, err
		}
		s.sql[name], s.conf[name] = db, conf
		if err := makeTables(db, name); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	options1, err := redis.ParseURL(os.Getenv("SDK_REDIS"))
	if err != nil {
		return nil, err
	}
	s.redis = redis.NewClient(options1)
	s.mongo, err = mongo.Connect(context.Background(), options.Client().ApplyURI(os.Getenv("SDK_MONGO")))
	if err != nil {
		return nil, err
	}
	// Collections cannot be made inside a transaction everywhere, and the barrier needs its unique index.
	keys := bson.D{{Key: "gid", Value: 1}, {Key: "branch_id", Value: 1}, {Key: "op", Value: 1}, {Key: "barrier_id", Value: 1}}
	unique := mongo.IndexModel{Keys: keys, Options: options.Index().SetUnique(true)}
	barriers := s.mongo.Database("dtm_barrier").Collection("barrier")
	if _, err := barriers.Indexes().CreateOne(context.Background(), unique); err != nil {
		return nil, err
	}
	return s, s.mongoAccount("opening", 0)
}

// makeTables is called by test programs that run side by side: one at a time.
func makeTables(db *sql.DB, name string) error {
	conn, err := db.Conn(context.Background())
	if err != nil {
		return err
	}
	defer conn.Close()
	lock := map[string]string{"mysql": "select get_lock('tables', 60)", "postgres": "select pg_advisory_lock(1)"}[name]
	unlock := map[string]string{"mysql": "select release_lock('tables')", "postgres": "select pg_advisory_unlock(1)"}[name]
	for _, statement := range append(append([]string{lock}, tables[name]...), unlock) {
		if _, err := conn.ExecContext(context.Background(), statement); err != nil {
			return err
		}
	}
	return nil
}

// dbConf takes an address apart.
func dbConf(driver, address string) (dtmcli.DBConf, error) {
	parsed, err := url.Parse(address)
	if err != nil || parsed.Host == "" {
		return dtmcli.DBConf{}, fmt.Errorf("SDK_%s must be the URL of a database, not %q", strings.ToUpper(driver), address)
	}
	port, err := strconv.ParseInt(parsed.Port(), 10, 64)
	password, _ := parsed.User.Password()
	conf := dtmcli.DBConf{Driver: driver, Host: parsed.Hostname(), Port: port, User: parsed.User.Username(),
		Password: password, Db: strings.TrimPrefix(parsed.Path, "/"), Schema: "public"}
	return conf, err
}

func dsn(conf dtmcli.DBConf) string {
	if conf.Driver == "mysql" {
		return fmt.Sprintf("%s:%s@tcp(%s:%d)/%s", conf.User, conf.Password, conf.Host, conf.Port, conf.Db)
	}
	return fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%s sslmode=disable",
		conf.Host, conf.Port, conf.User, conf.Password, conf.Db)
}

// SQL gives a store's database.
func (s *stores) SQL(store string) *sql.DB { return s.sql[store] }

// Conf is how the client wants to know a database for XA.
func (s *stores) Conf(store string) dtmcli.DBConf { return s.conf[store] }

// Open makes an account with so much in it.
func (s *stores) Open(store, account string, balance int) error {
	switch store {
	case "redis":
		return s.redis.Set(context.Background(), account, balance, 0).Err()
	case "mongo":
		return s.mongoAccount(account, balance)
	default:
		_, err := s.sql[store].Exec(fmt.Sprintf("insert into account values ('%s', %d, 0)", account, balance))
		return err
	}
}

func (s *stores) mongoAccount(account string, balance int) error {
	document := bson.M{"balance": balance, "held": 0}
	_, err := s.accounts().UpdateOne(context.Background(), bson.M{"_id": account}, bson.M{"$set": document},
		options.Update().SetUpsert(true))
	return err
}

func (s *stores) accounts() *mongo.Collection { return s.mongo.Database("shop").Collection("account") }

// Balance tells what is in an account: free, and held for a transaction under way.
func (s *stores) Balance(store, account string) (balance, held int, err error) {
	switch store {
	case "redis":
		balance, err = s.redis.Get(context.Background(), account).Int()
	case "mongo":
		var found struct{ Balance, Held int }
		err = s.accounts().FindOne(context.Background(), bson.M{"_id": account}).Decode(&found)
		balance, held = found.Balance, found.Held
	default:
		row := s.sql[store].QueryRow(fmt.Sprintf("select balance, held from account where name = '%s'", account))
		err = row.Scan(&balance, &held)
	}
	return
}
