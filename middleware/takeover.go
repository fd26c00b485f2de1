package middleware

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/internal/handover"
)

// A Handover joins a process with the one before it and with the one behind it, so that a
// service is restarted without closing a WebSocket: see [Takeover].
//
//	state    has                                          until
//	new      the predecessor's listeners and secrets,     Take has returned
//	         if there is a predecessor
//	serving  everything; successors come to its socket    a successor has everything
//	gone     what can't move, and requests under way      they are over, and Shutdown was called
//
// What the processes say to each other, and who owns a connection at any moment, is in the
// documentation of internal/handover.
type Handover struct {
	path string
	door *net.UnixListener // where successors come

	absentTime time.Duration // how long tunnels wait for their backend to be in the pool
	absentTurn time.Duration // the time over which they are closed then

	gateway *Gateway
	gone    chan struct{}  // closed when a successor has everything
	leave   chan struct{}  // closed by end
	alone   chan struct{}  // closed by Take, or later when the predecessor has nothing left
	serving sync.WaitGroup // the goroutines that serve successors, and take from a predecessor
	notes   sync.Map       // of *tunnelNote by *upgrade.Tunnel: what goes along with it

	mu        sync.Mutex
	before    *handover.Conn      // to the predecessor; nil without one, and after Take
	inherited map[string]int      // descriptors of listeners that nobody has asked for
	secrets   map[string][]byte   // of the predecessor's affinities
	listeners map[string]listener // what a successor gets
	taken     bool                // Take was called
	rest      *handover.Conn      // to the predecessor, from Take on
	owner     bool                // Take has succeeded: the socket at path is that of this process
	left      bool                // end was called
	session   *handover.Conn      // with a successor that hasn't asked for everything yet
	welcomed  bool                // a successor has the door, too
	missing   *time.Timer         // drains tunnels of backends that aren't there
	stopWish  func()              // ends the wait for backends of which the predecessor had wishes
	limits    []*Limit            // count the tunnels that are taken over
}

const (
	// retakePause and retakeTime are for a predecessor that ends at the moment at which its
	// successor comes.
	retakePause = 50 * time.Millisecond
	retakeTime  = 5 * time.Second
)

// Takeover begins the life of a process that takes the place of another one, its predecessor,
// and that will be replaced by its successor in the same way. path is that of a Unix socket
// where they meet, such as /run/shop/takeover. Only processes of the same user can. The folder
// must exist, and gets a second file, with .lock behind the name, which stays. If there is no
// predecessor, that is no error: the service starts from nothing.
//
//	h, err := limpet.Takeover(ctx, "/run/shop/takeover")
//	…
//	l, err := h.Listen("tcp", ":8080")
//	…
//	gateway, err := limpet.NewGateway(pool, &limpet.Options{Handover: h})
//	…
//	err = gateway.Serve(ctx, server, l, 30*time.Second)
//
// That is all: to replace a process start another one. Serve has it take everything when it is
// ready, and has the predecessor's Serve return when that has nothing left to do. A process
// that fails before it is ready leaves the predecessor as it was.
//
// These things go over:
//
//   - the listeners of [Handover.Listen], with those who wait in their queues
//   - all tunnels between plain sockets, wherever they are: within a frame, with bytes that wait
//     for a slow client, with one half closed. Their ends notice a pause of some milliseconds
//     for each thousand
//   - what operators want of backends: drains with their moments, weights, and shares
//   - the random secrets of affinities without Secrets, and the pins in each [affinity.LRU]
//   - what health checks have found, until there are checks here
//   - who was moved by MovePin and Options.Rebalance, and the counts of each [Limit] that has this
//     Handover
//
// These stay with the predecessor until they are over: requests, long polls, and kept
// connections, each of which is ended by its next answer. After the time drain of Serve, or 30
// s if that is longer, the sessions of clients that still poll are ended at their nodes, and
// idle connections are closed. Requests that are still under way four seconds later, such as
// streams of events, are cut. Tunnels that are closing stay too. Those with TLS, or on two
// goroutines, can't move: they are closed with 1012, spread over the time drain. Tunnels of
// backends that aren't in the pool here, and aren't added within 10 s, are drained.
//
// Observers are told of a tunnel's end in the process that it leaves, with [upgrade.ErrMoved],
// and not of its real end in the other one.
//
// The two builds may differ. If they don't understand each other, Take returns an error that
// says so. Takeover works on Linux only; elsewhere it returns an error.
func Takeover(ctx context.Context, path string) (*Handover, error) {
	h := &Handover{
		path: path, inherited: make(map[string]int), listeners: make(map[string]listener),
		gone: make(chan struct{}), leave: make(chan struct{}), alone: make(chan struct{}),
		absentTime: 10 * time.Second, absentTurn: 30 * time.Second,
	}
	for began := time.Now(); ; time.Sleep(retakePause) {
		err := h.meet(ctx)
		if err == nil {
			return h, nil
		}
		if !handover.Ended(err) || ctx.Err() != nil || time.Since(began) > retakeTime {
			return nil, fmt.Errorf("limpet: takeover at %s: %w", path, err)
		}
	}
}

// meet meets the predecessor, or finds that there is none.
func (h *Handover) meet(ctx context.Context) error {
	conn, door, err := handover.Open(ctx, h.path)
	if err != nil || conn == nil {
		h.door = door
		return err
	}
	stop := context.AfterFunc(ctx, conn.Interrupt)
	items, err := conn.Hello()
	stop()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("the predecessor doesn't answer: it is stopped or hangs, or has another successor, which isn't ready yet: %w", cmp.Or(context.Cause(ctx), err))
	}
	if err != nil {
		conn.Close()
		return err
	}
	h.before = conn
	for _, it := range items {
		if err := h.receive(it); err != nil {
			conn.Close()
			return err
		}
	}
	if h.door == nil {
		conn.Close()
		return errors.New("the predecessor has not passed its socket on")
	}
	return nil
}

// The records of what a predecessor welcomes its successor with begin with these words.
const (
	theDoor     = "door "
	theListener = "listener "
	theSecrets  = "secrets "
)

// welcome returns what a successor gets first, with descriptors that the caller closes.
func (h *Handover) welcome() (items []handover.Item, err error) {
	add := func(record string, c syscall.Conn) {
		fd, failed := handover.Duplicate(c)
		if failed != nil {
			err = failed
			return
		}
		items = append(items, handover.Item{Record: []byte(record), Files: []int{fd}})
	}
	add(theDoor, h.door)
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, l := range h.listeners {
		add(theListener+name, l)
	}
	secrets, failed := json.Marshal(affinity.RandomSecrets(h.gateway.router.affinity))
	items = append(items, handover.Item{Record: append([]byte(theSecrets), secrets...)})
	return items, errors.Join(err, failed)
}

// receive takes a part of the predecessor's welcome.
func (h *Handover) receive(it handover.Item) error {
	record := string(it.Record)
	name, isListener := strings.CutPrefix(record, theListener)
	secrets, isSecrets := strings.CutPrefix(record, theSecrets)
	switch {
	case record == theDoor && len(it.Files) == 1:
		l, err := handover.Listener(it.Files[0])
		if err != nil {
			return err
		}
		h.door = l.(*net.UnixListener)
	case isListener && len(it.Files) == 1:
		h.inherited[name] = it.Files[0]
	case isSecrets:
		return json.Unmarshal([]byte(secrets), &h.secrets)
	default: // of a build that has more
		handover.CloseAll(it.Files)
	}
	return nil
}

// inherit has the affinity use the predecessor's secrets.
func (h *Handover) inherit(a affinity.Affinity) { affinity.InheritSecrets(a, h.secrets) }

// join makes g the gateway that is handed over.
func (h *Handover) join(g *Gateway) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gateway != nil {
		return errors.New("limpet: Options.Handover belongs to another gateway: call Takeover for each, with paths of their own")
	}
	h.gateway, g.handover = g, h
	return nil
}

// Gone returns a channel that is closed when a successor has taken everything. A service that
// doesn't use [Gateway.Serve] then closes its listeners, has its servers end in order, and
// calls [Gateway.Shutdown] at last. Until then it serves what is left, and tunnels that are
// still opened follow the others.
func (h *Handover) Gone() <-chan struct{} { return h.gone }

// end ends what has to do with other processes. A hand-over that is under way is completed. It
// returns when no goroutine is left.
func (h *Handover) end() {
	h.mu.Lock()
	first := !h.left
	if first {
		h.left = true
		close(h.leave)
	}
	if h.door != nil {
		h.door.Close()
	}
	if h.session != nil {
		h.session.Interrupt()
	}
	if h.before != nil { // Take wasn't called: the predecessor needn't wait for it
		h.before.Close()
		h.before = nil
	}
	if h.rest != nil {
		h.rest.Interrupt()
	}
	if h.missing != nil {
		h.missing.Stop()
	}
	if h.stopWish != nil {
		h.stopWish()
	}
	alone := first && h.owner && !h.welcomed
	h.mu.Unlock()
	h.serving.Wait()
	select {
	case <-h.gone:
	default:
		if alone {
			os.Remove(h.path)
		}
	}
}
