package shop

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"strings"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/dtmgrpc"
	"github.com/dtm-labs/client/dtmgrpc/dtmgimp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"
)

const service = "shop.Shop"

// Server is the one that answers at Shop.GRPC once Serve was called; workflows register themselves at it before.
var Server = grpc.NewServer()

// MethodName is a branch's name as gRPC sees it: mysql/out is /shop.Shop/mysql_out.
func MethodName(branch string) string {
	return "/" + service + "/" + strings.ReplaceAll(branch, "/", "_")
}

// Message is an order as gRPC carries it: a message that needs no generated code.
func Message(order Order) *structpb.Struct {
	message, err := structpb.NewStruct(map[string]any{"account": order.Account, "amount": order.Amount})
	if err != nil {
		panic(err)
	}
	return message
}

func (s *Shop) serveGRPC() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.GRPC = listener.Addr().String()
	description := grpc.ServiceDesc{ServiceName: service, HandlerType: (*any)(nil)}
	for _, branch := range branches() {
		description.Methods = append(description.Methods, s.overGRPC(branch))
	}
	Server.RegisterService(&description, s)
	s.listener = listener
	return nil
}

// Serve begins to answer over gRPC.
func (s *Shop) Serve() { go func() { _ = Server.Serve(s.listener) }() }

// branches are all that there are, as gRPC wants to know them beforehand, those that are told included.
func branches() []string {
	names := []string{"nested/try", "nested/confirm", "nested/cancel"}
	for _, store := range Stores {
		names = append(names, store+"/query-prepared")
		for move := range moves {
			names = append(names, store+"/"+move)
		}
	}
	for _, store := range SQLStores {
		names = append(names, store+"/xa-out", store+"/xa-in")
	}
	return append(names, "told/a", "told/undo")
}

func (s *Shop) overGRPC(branch string) grpc.MethodDesc {
	store, move, _ := strings.Cut(branch, "/")
	return grpc.MethodDesc{
		MethodName: strings.ReplaceAll(branch, "/", "_"),
		Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			message := &structpb.Struct{}
			if err := decode(message); err != nil {
				return nil, err
			}
			info := dtmgimp.TransBaseFromGrpc(ctx)
			headers := map[string]string{"x-of-the-caller": dtmgimp.GetMetaFromContext(ctx, "x-of-the-caller")}
			s.note(info.Gid, branch, info.Op, info.BranchID, headers)
			err := s.grpcAnswer(ctx, store, move, message)
			s.finish(info.Gid)
			return &emptypb.Empty{}, dtmgrpc.DtmError2GrpcError(err)
		},
	}
}

func (s *Shop) grpcAnswer(ctx context.Context, store, move string, message *structpb.Struct) error {
	order := Order{Account: message.Fields["account"].GetStringValue(), Amount: int(message.Fields["amount"].GetNumberValue())}
	if work, xa := strings.CutPrefix(move, "xa-"); xa {
		branch := s.Xa(store)
		err := dtmgrpc.XaLocalTransaction(ctx, s.conf[store], func(db *sql.DB, _ *dtmgrpc.XaGrpc) error {
			return branch.Update(db, work, order)
		})
		return errors.Join(err, branch.Settle())
	}
	if store == "nested" {
		return s.nestedOverGRPC(ctx, move, order)
	}
	barrier, err := dtmgrpc.BarrierFromGrpc(ctx)
	if err != nil {
		return err
	}
	return s.answer(store, move, barrier, order)
}

// nestedOverGRPC is nestedOverHTTP over gRPC.
func (s *Shop) nestedOverGRPC(ctx context.Context, move string, order Order) error {
	if move != "try" {
		return nil
	}
	tcc, err := dtmgrpc.TccFromGrpc(ctx)
	if err != nil {
		return err
	}
	for _, branch := range []string{"mysql/out", "postgres/in"} {
		url := s.Method(branch)
		err := tcc.CallBranch(Message(order), url+"-try", url+"-confirm", url+"-cancel", &emptypb.Empty{})
		if err != nil {
			return errors.Join(err, dtmcli.ErrFailure)
		}
	}
	return nil
}
