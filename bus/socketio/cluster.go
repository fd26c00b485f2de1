package socketio

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus"
)

// ClusterOptions are the options of a [Cluster]. The zero value of each field is a
// good default.
type ClusterOptions struct {
	// Namespace is the namespace that the Cluster is a member of, / by default. A
	// process that is a member of several namespaces has a Cluster for each.
	Namespace string
	// Sockets are the clients that are connected to this process. nil means none.
	Sockets Sockets

	// ServerSideEmit is called with each event that another server emits to the
	// servers of the cluster. If that server waits for an answer, Event.Ack is set
	// and must be called once. Without this function the Cluster doesn't answer, and
	// the other server waits until its time limit, as it does for a node that has no
	// listener for the event.
	ServerSideEmit func(Event)
	// CustomRequest answers the customRequest of a Socket.IO 2 node, as the
	// customHook of a node does. Without this function the answer is nil.
	CustomRequest func(data any) (answer any)

	// Gap is called when messages of other members are lost, or may be. It must
	// return soon, since messages wait meanwhile. Without this function gaps are
	// logged. With [Streams], only a Gap whose Topics name the stream concerns what
	// was sent to sockets; any other concerns requests and answers.
	Gap func(*bus.Gap)
	// Logger is where the Cluster logs what goes wrong. nil means slog.Default().
	Logger *slog.Logger
}

// A Cluster is a member of a cluster of Socket.IO nodes, in the way a node with one
// of the Redis adapters is. It is a [Target] that selects everybody in its
// namespace. What it sends reaches its own sockets, too. Only what it sends with
// ServerSideEmit isn't delivered to itself.
//
// While [Cluster.Run] runs, the Cluster delivers what other members send to its
// sockets and answers their requests, one message after the other in the order in
// which they arrive. A function of the options or of [Sockets] that takes long
// delays all messages behind it. Such a function may send a request to the cluster
// itself, as long as no more than about 256 messages arrive before it returns.
//
// Pub/sub delivers a message at most once: a message that is sent while Redis can't
// be reached is lost, and so is a message that Redis hasn't delivered yet when it
// dies. The Cluster connects again by itself and reports the loss to Gap. With
// [Streams], the Cluster reads what was sent to clients from the place in the stream
// where the connection broke.
//
// All methods may be called concurrently.
type Cluster struct {
	Target
	link    link
	adapter Adapter
	opts    ClusterOptions
	uid     string
	guest   bool // sends one request and receives the answers, but isn't a member

	// A Cluster passes through these states once. So does a guest, which is what a
	// Target uses for a single request if it has no member in the namespace.
	//
	//	state     entered by             what a request (ask, others) does
	//	new       NewCluster             waits for ready
	//	starting  Run                    waits for ready; notReady says why it takes long
	//	ready     last call of started   is sent
	//	ended     return of Run          fails with the error of Run
	//
	// Run starts a goroutine that handles messages, one that subscribes to the channels,
	// one that follows the stream if there is one, and one that sends heartbeats if there
	// are any. It returns after they have ended. No lock is held for these fields.
	ran      atomic.Bool
	starting atomic.Int32          // parts of Run that haven't started
	ready    chan struct{}         // closed when all parts have started
	ended    chan struct{}         // closed when Run returns
	end      error                 // set before ended is closed
	foreign  sync.Once             // logs a message that can't be read
	notReady atomic.Pointer[error] // the last error: why a request finds it not ready

	members members // the other members, if there are heartbeats

	mu    sync.Mutex
	rooms map[string]struct{} // rooms with local sockets
	sub   bus.Subscription    // nil before Run and for a guest
	asked map[string]*pending // requests that wait for answers, by ID
}

// NewCluster returns a Cluster. The caller then calls [Cluster.Run]. A nil adapter
// means PubSub{}, nil options mean the defaults. The client needs
// ContextTimeoutEnabled, which a client of [bus.NewRedisClient] has. The caller
// closes the client after Run has returned.
func NewCluster(client redis.UniversalClient, adapter Adapter, opts *ClusterOptions) (*Cluster, error) {
	link, err := newRedisLink(client)
	if err != nil {
		return nil, err
	}
	return newCluster(link, adapter, opts)
}

func newCluster(link link, adapter Adapter, opts *ClusterOptions) (*Cluster, error) {
	adapter, err := checkAdapter(adapter)
	if err != nil {
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

// Run takes part in the cluster until ctx ends, and then returns nil. The caller
// calls it once. While Redis can't be reached, Run waits for it. It returns an error
// if its subscription fails for another reason.
//
// Members aren't told of the end, except by [Streams] with Heartbeats: they see that
// there is one subscriber less.
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
	running.Go(func() { c.subscribe(ctx, sub) })
	return c.receive(ctx, sub, inbox)
}

// subscribe subscribes to the channels, and starts the Cluster once it has those that each
// member needs. A bus that returns an error goes on trying, and its Gap tells when it has some
// of them: in a Redis Cluster the others may be on a node that is away. So it is asked again.
func (c *Cluster) subscribe(ctx context.Context, sub bus.Subscription) {
	err := sub.Add(ctx, c.attach(sub)...)
	for logged := false; err != nil; err = sub.Add(ctx, c.channels()...) {
		if ctx.Err() != nil {
			return
		}
		why := err // others read it while err changes
		c.notReady.Store(&why)
		if !logged {
			logged = true
			c.opts.Logger.Warn("the Socket.IO cluster can't be reached; waiting for Redis", "nsp", c.nsp, "err", err)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
	c.started()
}

// receive passes on messages until ctx ends.
func (c *Cluster) receive(ctx context.Context, sub bus.Subscription, inbox chan<- *message) error {
	for {
		msg, err := sub.Next(ctx)
		var gap *bus.Gap
		switch {
		case errors.As(err, &gap):
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

// started notes that one part of Run has started: the subscription, the place in the
// stream, or the heartbeats. After the last one the Cluster receives whatever other
// members send, so requests may be sent.
func (c *Cluster) started() {
	if c.starting.Add(-1) == 0 {
		close(c.ready)
	}
}

// gap reports messages that may be lost.
func (c *Cluster) gap(gap *bus.Gap) {
	if c.opts.Gap != nil {
		c.opts.Gap(gap)
		return
	}
	c.opts.Logger.Warn("messages of the Socket.IO cluster may be missing", "nsp", c.nsp, "lost", gap.Lost, "err", gap.Err)
}
