// Package gozero has two services made with go-zero, trans and account, and stories of transactions between them.
package gozero

import (
	"context"
	"sync"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/dtmgrpc"
	"github.com/zeromicro/go-zero/core/discov"
	"github.com/zeromicro/go-zero/core/logx"
	"github.com/zeromicro/go-zero/zrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Service is the name in every branch address: each go-zero service here serves the same interface.
const Service = "shop.Branch"

// Branches answers as it is told, and notes what it was asked.
type Branches struct {
	mutex   sync.Mutex
	calls   map[string][]string
	refused map[string]bool
}

// NewBranches accepts everything.
func NewBranches() *Branches {
	return &Branches{calls: map[string][]string{}, refused: map[string]bool{}}
}

// Refuse has one method say no for one transaction.
func (b *Branches) Refuse(gid, method string) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.refused[gid+"/"+method] = true
}

// Calls are the methods that a transaction called here, in their order.
func (b *Branches) Calls(gid string) []string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return append([]string{}, b.calls[gid]...)
}

func (b *Branches) call(ctx context.Context, method string) error {
	known, _ := metadata.FromIncomingContext(ctx)
	gid := ""
	if found := known.Get("dtm-gid"); len(found) > 0 {
		gid = found[0]
	}
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.calls[gid] = append(b.calls[gid], method)
	if b.refused[gid+"/"+method] {
		return dtmgrpc.DtmError2GrpcError(dtmcli.ErrFailure)
	}
	return nil
}

// Methods of the interface; all take an amount.
var methods = []string{"Out", "OutUndo", "In", "InUndo", "InTry", "InConfirm", "InCancel", "QueryPrepared"}

// Written by hand, so that a story needs no protoc: what a generated file would register.
func description() *grpc.ServiceDesc {
	desc := &grpc.ServiceDesc{ServiceName: Service, HandlerType: (*interface{})(nil)}
	for _, method := range methods {
		method := method
		handler := func(srv interface{}, ctx context.Context, decode func(interface{}) error, interceptor grpc.UnaryServerInterceptor) (interface{}, error) {
			amount := new(wrapperspb.Int64Value)
			if err := decode(amount); err != nil {
				return nil, err
			}
			answer := func(ctx context.Context, _ interface{}) (interface{}, error) {
				return new(emptypb.Empty), srv.(*Branches).call(ctx, method)
			}
			if interceptor == nil {
				return answer(ctx, amount)
			}
			info := &grpc.UnaryServerInfo{Server: srv, FullMethod: "/" + Service + "/" + method}
			return interceptor(ctx, amount, info, answer)
		}
		desc.Methods = append(desc.Methods, grpc.MethodDesc{MethodName: method, Handler: handler})
	}
	return desc
}

// Serve starts a go-zero service that registers under key, and returns what it notes.
func Serve(etcd, address, key string) (*Branches, *zrpc.RpcServer) {
	conf := zrpc.RpcServerConf{ListenOn: address, Etcd: discov.EtcdConf{Hosts: []string{etcd}, Key: key}, Timeout: 2000}
	conf.Name = key
	conf.Mode = "dev"
	conf.Log = logx.LogConf{Mode: "console", Level: "error", Encoding: "plain"}
	branches := NewBranches()
	server := zrpc.MustNewServer(conf, func(server *grpc.Server) { server.RegisterService(description(), branches) })
	go server.Start()
	return branches, server
}

// Target is the address of a service as go-zero makes it of its configuration.
func Target(etcd, key string) string {
	conf := zrpc.RpcClientConf{Etcd: discov.EtcdConf{Hosts: []string{etcd}, Key: key}}
	target, err := conf.BuildTarget()
	if err != nil {
		panic(err)
	}
	return target
}
