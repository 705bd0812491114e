package shop

import (
	"database/sql"
	"fmt"
	"time"
)

// XaBranch is the local part of an XA transaction.
//
// MariaDB, like MySQL before 8.0.29, can commit a prepared branch only once the connection that prepared it is gone, and
// until then says that it knows no such branch; dtm's client takes that for a commit that was done before. So whoever
// has prepared one waits here for the end of its connection before anybody hears of it.
type XaBranch struct {
	shop       *Shop
	store      string
	connection int64
}

// Xa begins one.
func (s *Shop) Xa(store string) *XaBranch { return &XaBranch{shop: s, store: store} }

// Update is its work, on the connection that has begun it.
func (b *XaBranch) Update(db *sql.DB, move string, order Order) error {
	if b.store == "mysql" {
		if err := db.QueryRow("select connection_id()").Scan(&b.connection); err != nil {
			return err
		}
	}
	change := moves[move]
	return update(db, order.Account, change.balance*order.Amount, change.held*order.Amount)
}

// Settle waits until it can be committed. Where nothing was done there is nothing to wait for.
func (b *XaBranch) Settle() error {
	if b.connection == 0 {
		return nil
	}
	still := fmt.Sprintf("select count(*) from information_schema.processlist where id = %d", b.connection)
	for deadline := time.Now().Add(holdMax); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		var count int
		if err := b.shop.sql[b.store].QueryRow(still).Scan(&count); err != nil || count == 0 {
			return err
		}
	}
	return fmt.Errorf("connection %d does not end", b.connection)
}
