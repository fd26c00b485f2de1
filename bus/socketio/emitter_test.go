package socketio_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus/hub"
	"github.com/limpet-go/limpet/bus/socketio"
	"github.com/limpet-go/limpet/internal/redistest"
)

// A recorder is a hook that records commands instead of sending them.
type recorder struct {
	mu       sync.Mutex
	commands []string
}

func record(t testing.TB) (*redis.Client, *recorder) {
	client, r := redis.NewClient(&redis.Options{Addr: "unused:1", ContextTimeoutEnabled: true}), &recorder{}
	client.AddHook(r)
	t.Cleanup(func() { client.Close() })
	return client, r
}

func (r *recorder) DialHook(next redis.DialHook) redis.DialHook { return next }

func (r *recorder) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, cmd redis.Cmder) error {
		r.record(cmd)
		return nil
	}
}

func (r *recorder) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(_ context.Context, cmds []redis.Cmder) error {
		r.record(cmds...)
		return nil
	}
}

func (r *recorder) record(cmds ...redis.Cmder) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, cmd := range cmds {
		var words []string
		for _, arg := range cmd.Args() {
			if b, ok := arg.([]byte); ok {
				arg = string(b)
			}
			words = append(words, fmt.Sprint(arg))
		}
		r.commands = append(r.commands, strings.Join(words, " "))
	}
}

func TestEmitterSends(t *testing.T) {
	t.Parallel()
	const id, id2 = "aaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbbbb"
	emit := func(t socketio.Target) error { return t.Emit(context.Background(), "ev", 1) }
	join := func(t socketio.Target) error { return t.SocketsJoin(context.Background(), "r8", "r9") }
	serverSide := func(t socketio.Target) error { return t.ServerSideEmit(context.Background(), "ev", 1) }
	for _, tt := range []struct {
		name    string
		adapter socketio.Adapter
		do      func(socketio.Target) error
		to      []string
		want    []string // the beginnings of the commands
	}{
		{"default", nil, emit, nil, []string{"publish socket.io#/chat# \x93\xa7emitter\x83"}},
		{"a room", socketio.PubSub{Prefix: "p"}, emit, []string{"r1"}, []string{"publish p#/chat#r1# \x93"}},
		{"rooms", socketio.PubSub{}, emit, []string{"r1", "r2", "r1"}, []string{"publish socket.io#/chat# \x93"}},
		{"current, join", socketio.PubSub{Prefix: "p"}, join, []string{"r1"}, []string{
			`publish p-request#/chat# {"uid":"emitter","type":2,"opts":{"rooms":["r1"],"except":[]},"rooms":["r8","r9"]}`,
		}},
		{"legacy, join", socketio.Legacy{Prefix: "p"}, join, []string{"/chat#" + id, id2}, []string{
			`publish p-request#/chat# {"requestid":"","type":3,"sid":"/chat#` + id + `","room":"r8"}`,
			`publish p-request#/chat# {"requestid":"","type":3,"sid":"/chat#` + id + `","room":"r9"}`,
			`publish p-request#/chat# {"requestid":"","type":3,"sid":"` + id2 + `","room":"r8"}`,
			`publish p-request#/chat# {"requestid":"","type":3,"sid":"` + id2 + `","room":"r9"}`,
		}},
		{"legacy of Socket.IO 3, join", socketio.Legacy{V3: true}, join, []string{id}, []string{
			`publish socket.io-request#/chat# {"requestId":"","type":2,"sid":"` + id + `","room":"r8"}`,
			`publish socket.io-request#/chat# {"requestId":"","type":2,"sid":"` + id + `","room":"r9"}`,
		}},
		{"sharded", socketio.Sharded{}, emit, []string{"r1"}, []string{
			`spublish socket.io#/chat#r1# {"type":3,"data":{"packet":{"type":2,"data":["ev",1]},"opts":{"rooms":["r1"],"except":[],"flags":{}}},"uid":"emitter","nsp":"/chat"}`,
		}},
		{"sharded, a socket", socketio.Sharded{}, emit, []string{id}, []string{"spublish socket.io#/chat# {"}},
		{"sharded, static", socketio.Sharded{SubscriptionMode: socketio.SubscriptionModeStatic}, emit, []string{"r1"}, []string{"spublish socket.io#/chat# {"}},
		{"sharded, private", socketio.Sharded{SubscriptionMode: socketio.SubscriptionModeDynamicPrivate}, emit, []string{id}, []string{"spublish socket.io#/chat#" + id + "# {"}},
		{"sharded, servers", socketio.Sharded{Prefix: "p"}, serverSide, nil, []string{
			`spublish p#/chat# {"type":9,"data":{"packet":["ev",1]},"uid":"emitter","nsp":"/chat"}`,
		}},
		{"streams", socketio.Streams{}, emit, nil, []string{
			`xadd socket.io maxlen ~ 10000 * uid emitter nsp /chat type 3 data {"packet":{"type":2,"data":["ev",1]},"opts":{"rooms":[],"except":[],"flags":{}}}`,
		}},
		{"several streams", socketio.Streams{Stream: "s", Count: 3, MaxLen: 5}, emit, nil, []string{"xadd s-1 maxlen ~ 5 * uid"}},
		{"streams, servers", socketio.Streams{Prefix: "p", Sharded: true}, serverSide, nil, []string{"spublish p#/chat# \x84\xa4type\x09"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client, r := record(t)
			e, err := socketio.NewEmitter(client, tt.adapter)
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.do(e.Of("chat").To(tt.to...)); err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(r.commands, tt.want, strings.HasPrefix) {
				t.Errorf("sent\n%q, want\n%q", r.commands, tt.want)
			}
		})
	}
}

func TestEmitterRefuses(t *testing.T) {
	t.Parallel()
	client, r := record(t)
	e, err := socketio.NewEmitter(client, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, event := range []string{"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"} {
		if err := e.Emit(t.Context(), event); !errors.Is(err, socketio.ErrReserved) {
			t.Errorf("Emit %s: %v", event, err)
		}
	}
	for _, event := range []string{"connect", "connection", "new_namespace"} {
		if err := e.ServerSideEmit(t.Context(), event); !errors.Is(err, socketio.ErrReserved) {
			t.Errorf("ServerSideEmit %s: %v", event, err)
		}
	}
	if err := e.To("room").ServerSideEmit(t.Context(), "ev"); err == nil {
		t.Error("ServerSideEmit to a room: no error")
	}
	if err := e.Emit(t.Context(), "ev", func() {}); err == nil {
		t.Error("a func as an argument: no error")
	}
	if len(r.commands) > 0 {
		t.Errorf("sent %q", r.commands)
	}
	if _, err := socketio.NewEmitter(nil, nil); err == nil {
		t.Error("no client: no error")
	}
	if _, err := socketio.NewEmitter(client, socketio.Sharded{SubscriptionMode: 3}); err == nil {
		t.Error("no such mode: no error")
	}
	if _, err := socketio.NewEmitter(client, socketio.Streams{Count: -1}); err == nil {
		t.Error("streams: no error")
	}
	for _, adapter := range []socketio.Adapter{(*socketio.PubSub)(nil), (*socketio.Legacy)(nil), (*socketio.Sharded)(nil), (*socketio.Streams)(nil)} {
		_, emitter := socketio.NewEmitter(client, adapter)
		_, cluster := socketio.NewCluster(client, adapter, nil)
		for what, err := range map[string]error{"NewEmitter": emitter, "NewCluster": cluster} {
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("a nil %T", adapter)) {
				t.Errorf("%s with a nil %T: %v", what, adapter, err)
			}
		}
	}
}

// Several goroutines may derive Targets from one at the same time.
func TestTargetStaysAsItIs(t *testing.T) {
	t.Parallel()
	client, r := record(t)
	e, err := socketio.NewEmitter(client, socketio.Sharded{})
	if err != nil {
		t.Fatal(err)
	}
	base := e.To("r1", "r2", "r3").Except("r4") // a list with room for a fourth
	var derived, wg sync.WaitGroup
	derived.Add(20)
	for i := range 20 {
		wg.Go(func() {
			more := fmt.Sprint("more", i)
			target := base.To(more).Except(more).Volatile().Compress(false)
			derived.Done()
			derived.Wait()
			if err := target.Emit(t.Context(), "ev"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range 20 {
		want := fmt.Sprintf(`"opts":{"rooms":["r1","r2","r3","more%d"],"except":["r4","more%[1]d"],"flags":{"compress":false,"volatile":true}}`, i)
		if !slices.ContainsFunc(r.commands, func(s string) bool { return strings.Contains(s, want) }) {
			t.Errorf("sent %q, want %s in one", r.commands, want)
		}
	}
	r.commands = nil
	if err := base.Compress(true).Emit(t.Context(), "ev"); err != nil {
		t.Fatal(err)
	}
	if got, want := r.commands[0], `"opts":{"rooms":["r1","r2","r3"],"except":["r4"],"flags":{}}`; !strings.Contains(got, want) {
		t.Errorf("sent %s, want %s in it", got, want)
	}
}

func TestEmitterWithoutRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := server.Client(t)
	e, err := socketio.NewEmitter(client, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Emit(t.Context(), "ev"); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Emit(ended, "ev"); !errors.Is(err, context.Canceled) {
		t.Errorf("after ctx has ended: %v", err)
	}
	server.Kill()
	err = e.To("room").Emit(t.Context(), "ev")
	var refused *net.OpError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), `"socket.io#/#room#"`) {
		t.Errorf("without Redis: %v", err)
	}
}

// A client that can't keep time limits is refused at once, before anything is
// sent or subscribed to.
func TestClients(t *testing.T) {
	t.Parallel()
	h, err := hub.New(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, client := range map[string]redis.UniversalClient{
		"ContextTimeoutEnabled": redis.NewClient(&redis.Options{Addr: "unused:1"}),
		"Ring":                  redis.NewRing(&redis.RingOptions{ContextTimeoutEnabled: true}),
		"no Client":             nil,
	} {
		if client != nil {
			defer client.Close()
		}
		_, emitter := socketio.NewEmitter(client, nil)
		_, cluster := socketio.NewCluster(client, nil, nil)
		_, bridge := socketio.NewBridge(h, client, nil, nil)
		for of, err := range map[string]error{"NewEmitter": emitter, "NewCluster": cluster, "NewBridge": bridge} {
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v, want %s", of, err, name)
			}
		}
	}
}
