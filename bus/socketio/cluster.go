package socketio

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus"
)

// ClusterOptions are a Cluster's. The zero value of each field is a good default.
type ClusterOptions struct {
	// Namespace is the one that the Cluster is a member of, / by default. A
	// process has a Cluster for each.
	Namespace string
	// Sockets are the clients that it has itself. nil means none.
	Sockets Sockets

	// ServerSideEmit gets what other servers emit to servers. Where they wait for
	// the answers of all servers, Event.Ack is set and must be called once: a
	// Cluster without this function leaves them waiting, as a node does that has
	// no listener.
	ServerSideEmit func(Event)
	// CustomRequest answers the customRequest of Socket.IO 2, like customHook. An
	// answer is nil without it.
	CustomRequest func(data any) (answer any)

	// Gap is called when messages of other members are missing, or may be. It must
	// return soon. Without it gaps are logged. With [Streams], only one whose
	// Topics are the stream is about what was sent to sockets.
	Gap func(*bus.Gap)
	// Logger is slog.Default() if nil.
	Logger *slog.Logger
}

// A Cluster is a member of a cluster of Socket.IO nodes, as a node with one of
// the Redis adapters is. It is its own [Target] for everybody in its namespace;
// what it sends reaches its own sockets as well, other than ServerSideEmit.
//
// While [Cluster.Run] runs, it gets what others send to its sockets and answers
// what they ask, in the order in which it comes: a function of the options or
// of [Sockets] that takes long lets the others wait. It may ask the cluster
// something itself, as long as not too much else comes meanwhile.
//
// At most once is what pub/sub promises: what is sent while Redis can't be
// reached is lost, and so is what it had no time to deliver when it died. The
// Cluster connects again by itself and tells its Gap. With [Streams], what is
// sent to clients is read from the stream where the connection broke off.
//
// All methods may be called concurrently.
type Cluster struct {
	Target
	link    link
	adapter Adapter
	opts    ClusterOptions
	uid     string
	guest   bool // asks, but isn't a member

	ran      atomic.Bool
	starting atomic.Int32          // what isn't subscribed to or read yet
	ready    chan struct{}         // closed when nothing is missing
	ended    chan struct{}         // closed when Run returns
	end      error                 // why, once ended is closed
	foreign  sync.Once             // the warning of messages that make no sense
	notReady atomic.Pointer[error] // why it isn't ready, as far as that is known

	members members // the other members, of Streams with Heartbeats

	mu    sync.Mutex
	rooms map[string]struct{} // that have local sockets
	sub   bus.Subscription
	asked map[string]*pending // by ID
}

// NewCluster returns a Cluster whose caller runs [Cluster.Run]. A nil adapter
// means PubSub{}, nil options are defaults. The client needs
// ContextTimeoutEnabled, as that of [bus.NewRedisClient] has; it is the caller's to
// close, after Run has returned.
func NewCluster(client redis.UniversalClient, adapter Adapter, opts *ClusterOptions) (*Cluster, error) {
	link, err := newRedisLink(client)
	if err != nil {
		return nil, err
	}
	return newCluster(link, adapter, opts)
}

func newCluster(link link, adapter Adapter, opts *ClusterOptions) (*Cluster, error) {
	if adapter == nil {
		adapter = PubSub{}
	}
	if err := adapter.check(); err != nil {
		return nil, err
	}
	c := &Cluster{
		link: link, adapter: adapter, uid: rand.Text(),
		ready: make(chan struct{}), ended: make(chan struct{}),
		rooms: make(map[string]struct{}), asked: make(map[string]*pending),
	}
	if opts != nil {
		c.opts = *opts
	}
	if c.opts.Logger == nil {
		c.opts.Logger = slog.Default()
	}
	if c.opts.Sockets == nil {
		c.opts.Sockets = noSockets{}
	}
	c.Target = Target{via: c}.Of(c.opts.Namespace)
	return c, nil
}

// Run takes part in the cluster until ctx ends, and then returns nil: its caller
// starts it, once. What the others see of the end is that there is one
// subscriber less. When Redis can't be reached Run waits for it.
//
// It returns an error when the subscription can't go on.
func (c *Cluster) Run(ctx context.Context) (err error) {
	if c.ran.Swap(true) {
		return errors.New("socketio: the Cluster has run before")
	}
	defer func() {
		if c.end = err; err == nil {
			c.end = errors.New("Run has ended")
		}
		close(c.ended)
	}()
	sub, err := c.link.subscribe(ctx, c.adapter.sharded())
	if err != nil {
		return fmt.Errorf("socketio: subscribe: %w", err)
	}
	defer sub.Close()

	var running sync.WaitGroup
	defer running.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	inbox := make(chan *message, 256)
	running.Go(func() { c.handleAll(ctx, inbox) })

	c.starting.Store(1)
	if s := c.adapter.stream(c.nsp); s != nil && (s.heartbeats || !c.guest) {
		c.starting.Add(1)
		started := c.started
		if s.heartbeats {
			started = func() { running.Go(func() { c.beat(ctx) }) }
		}
		running.Go(func() { c.follow(ctx, s, started, inbox) })
	}
	return c.receive(ctx, sub, inbox)
}

// receive subscribes and takes messages until ctx ends.
func (c *Cluster) receive(ctx context.Context, sub bus.Subscription, inbox chan<- *message) error {
	subscribed := sync.OnceFunc(c.started)
	if err := sub.Add(ctx, c.attach(sub)...); err == nil {
		subscribed()
	} else if ctx.Err() == nil {
		c.notReady.Store(&err)
		c.opts.Logger.Warn("the Socket.IO cluster can't be reached; waiting for Redis", "nsp", c.nsp, "err", err)
	}
	for {
		msg, err := sub.Next(ctx)
		var gap *bus.Gap
		switch {
		case errors.As(err, &gap):
			subscribed()
			c.gap(gap)
		case err != nil && ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("socketio: %w", err)
		default:
			m, err := c.adapter.decode(c.nsp, msg.Topic, msg.Data)
			c.deliver(ctx, m, err, inbox)
		}
	}
}

// found counts down what is missing before members can count on this one.
func (c *Cluster) started() {
	if c.starting.Add(-1) == 0 {
		close(c.ready)
	}
}

func (c *Cluster) gap(gap *bus.Gap) {
	if c.opts.Gap != nil {
		c.opts.Gap(gap)
		return
	}
	c.opts.Logger.Warn("messages of the Socket.IO cluster may be missing", "nsp", c.nsp, "lost", gap.Lost, "err", gap.Err)
}
