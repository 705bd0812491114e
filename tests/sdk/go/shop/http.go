package shop

import (
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/workflow"
)

func (s *Shop) serveHTTP() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.HTTP = "http://" + listener.Addr().String()
	go func() { _ = http.Serve(listener, http.HandlerFunc(s.overHTTP)) }()
	return nil
}

func (s *Shop) overHTTP(writer http.ResponseWriter, request *http.Request) {
	query := request.URL.Query()
	branch := strings.TrimPrefix(request.URL.Path, "/")
	headers := map[string]string{}
	for name := range request.Header {
		headers[strings.ToLower(name)] = request.Header.Get(name)
	}
	s.note(query.Get("gid"), branch, query.Get("op"), query.Get("branch_id"), headers)
	body, err := io.ReadAll(request.Body)
	if err == nil {
		err = s.httpAnswer(branch, query, body)
	}
	s.finish(query.Get("gid"))
	status, answer := http.StatusOK, any(map[string]string{"answer": "done"})
	if err != nil {
		status, answer = dtmcli.Result2HttpJSON(err)
	}
	writer.Header().Set("Content-Type", "application/json")
	writer.WriteHeader(status)
	_ = json.NewEncoder(writer).Encode(answer)
}

func (s *Shop) httpAnswer(branch string, query url.Values, body []byte) error {
	store, move, found := strings.Cut(branch, "/")
	if branch == "workflow" {
		return workflow.ExecuteByQS(query, body)
	}
	if !found {
		return errors.New("nobody knows the branch " + branch)
	}
	order := Order{}
	if len(body) > 0 {
		if err := json.Unmarshal(body, &order); err != nil {
			return err
		}
	}
	if work, xa := strings.CutPrefix(move, "xa-"); xa {
		branch := s.Xa(store)
		err := dtmcli.XaLocalTransaction(query, s.conf[store], func(db *sql.DB, _ *dtmcli.Xa) error {
			return branch.Update(db, work, order)
		})
		return errors.Join(err, branch.Settle())
	}
	if store == "nested" {
		return s.nestedOverHTTP(query, move, order)
	}
	barrier, err := dtmcli.BarrierFromQuery(query)
	if err != nil {
		return err
	}
	return s.answer(store, move, barrier, order)
}

// nestedOverHTTP is a TCC branch that has branches of its own: out of a MySQL account, into one of PostgreSQL.
func (s *Shop) nestedOverHTTP(query url.Values, move string, order Order) error {
	if move != "try" {
		return nil
	}
	tcc, err := dtmcli.TccFromQuery(query)
	if err != nil {
		return err
	}
	for _, branch := range []string{"mysql/out", "postgres/in"} {
		url := s.URL(branch)
		if _, err := tcc.CallBranch(order, url+"-try", url+"-confirm", url+"-cancel"); err != nil {
			return err
		}
	}
	return nil
}
