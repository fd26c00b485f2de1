package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/limpet-go/limpet/bus"
)

// Options are the options of a hub. The zero value of each field is a good default.
type Options struct {
	// Prefix begins the names of the hub's topics; it is "hub" by default. Hubs
	// with the same prefix on the same bus are the nodes of one hub.
	Prefix string

	// QueueBytes bounds what waits for a member whose connection is slow; it is
	// 1 MiB by default. A message counts as the length of its payload, but as 64
	// bytes at least. A message that is larger than QueueBytes fits into an empty
	// queue. This is a bound and not a buffer: an empty queue takes no memory, and
	// a message to many members is kept once for all of them.
	QueueBytes int
	// QueueMessages bounds the number of messages that wait as well; 0 means that
	// only QueueBytes counts. With DropOldest and a QueueMessages of 1 a slow
	// member gets only the newest message, which is what a position that changes
	// often needs.
	QueueMessages int
	// DropOldest makes a member whose queue is full lose the oldest messages in
	// it. By default such a member is closed with 1013 (Try Again Later).
	// [Hub.Stats] counts both.
	DropOldest bool

	// Recover is the number of messages to a room that a member gets which it has missed
	// while it was away, or because it is slow; 0 means none. It is for members that
	// speak [Protocol], and for messages to rooms: those to IDs and to everybody aren't
	// recovered, so that who wants these to be, gives each user a room, and everybody
	// one. If more are missing, or the bus doesn't keep them any more, the member is
	// told that messages are missing, and goes on with those that come.
	//
	// The bus has to be a [bus.History], which sets how many messages are kept and for
	// how long. What is sent to rooms comes to all nodes in one order then, also to the
	// node that sends it, over the bus: if the bus is away it doesn't come. It must be
	// set on all nodes of a hub or on none. Whoever is in a room may read what was sent
	// there before, as far as Recover reaches.
	//
	// Members that come back to a node at the same moment share what it reads. A member
	// that speaks Protocol never loses messages to rooms because its queue is full: it
	// gets them from the history once it has taken what is in its queue. DropOldest isn't
	// for these members.
	Recover int

	// WriteTimeout is how long a [Conn] may take for one call of Send or Close; it
	// is 5 s by default. A connection that takes longer is given up.
	WriteTimeout time.Duration

	// Heartbeat is how often each node tells others that it is there; it is every 2 s
	// by default, and may differ between nodes. With more than 8 other nodes it tells
	// two of them, who watch it, and all of them seldom, so that a node hears some six
	// others in each heartbeat, however many there are. A node that has been silent for
	// its watchers for two and a half heartbeats is asked before all, and forgotten if it
	// doesn't answer within another one. One that ends says so.
	Heartbeat time.Duration

	// Timeout is how long [Hub.Members] and [Hub.Call] wait for other nodes unless their
	// context ends earlier; it is 2 s by default. A node that hasn't answered Members
	// within it is forgotten if it isn't heard within a heartbeat, and waited for only
	// a twentieth of Timeout until then.
	Timeout time.Duration

	// Joined is called for each room that a member of this node enters, and Left
	// for each that it leaves; when the member ends, Left is called for all rooms
	// that it was in. A member's own goroutine makes its calls, one after the
	// other and in order, and writes nothing to the connection meanwhile. When
	// hundreds of calls are due, a room that the member has left as often as it
	// has entered it is skipped.
	Joined, Left func(m *Member, room string)

	// Node is called with true when another node is heard for the first time, and
	// with false when it has left or is forgotten. It must return soon, and must
	// not wait for [Member.Join] or [Hub.Connect]: both wait for the goroutine
	// that calls Node.
	Node func(id string, alive bool)

	// Presence makes the nodes tell each other of their members, so that
	// [Hub.Present] and [Hub.Count] know those of all nodes without asking. Set it on
	// all nodes: the members of those without it are missing. Each node keeps the ID,
	// the rooms and the data of each member of all nodes. Changes of a node are told
	// together, some 50 ms later; with many nodes 2 ms later for each of them.
	// Whatever is lost is told again. The members of a node that has left or is
	// forgotten are gone. Names that aren't UTF-8 arrive as in a [MemberInfo].
	Presence bool

	// OnPresence is called with true when a member of any node, this one included, has
	// joined a room, and with false when it has left it or has ended; it needs
	// Presence. The calls are made one after the other, and those for one member and
	// room take turns; members of the same ID are told one by one. Who joins and leaves
	// again before it was told isn't told. OnPresence must return soon, and must not
	// wait for [Member.Join] or [Hub.Connect]. m must not be changed.
	OnPresence func(m MemberInfo, room string, joined bool)

	// Answer answers the calls of other nodes, and of this one ([Hub.Call]), each in a
	// goroutine of its own. node is the ID of the node that calls. ctx ends when that
	// doesn't wait any more, or with Run, which waits for Answer. The bytes of request must
	// not be changed.
	Answer func(ctx context.Context, node string, request []byte) ([]byte, error)

	// Gap is called when messages of other nodes to members of this node are
	// missing, or may be. Those members are the ones that who selects. It must
	// return soon. Without it gaps are logged.
	Gap func(who Who, gap *bus.Gap)

	// Logger gets what the hub has to say; nil means [slog.Default].
	Logger *slog.Logger
}

// setDefaults replaces what isn't set.
func (o *Options) setDefaults() error {
	for name, n := range map[string]int{"QueueBytes": o.QueueBytes, "QueueMessages": o.QueueMessages, "Recover": o.Recover} {
		if n < 0 {
			return fmt.Errorf("%s is %d; 0 is the default", name, n)
		}
	}
	for name, d := range map[string]time.Duration{"WriteTimeout": o.WriteTimeout, "Heartbeat": o.Heartbeat, "Timeout": o.Timeout} {
		switch {
		case d < 0:
			return fmt.Errorf("%s is %v; 0 is the default", name, d)
		case d != 0 && d < time.Millisecond:
			return fmt.Errorf("%s is %v: a number without a unit counts nanoseconds; want 5*time.Second, say", name, d)
		}
	}
	if o.OnPresence != nil && !o.Presence {
		return errors.New("OnPresence is set, but not Presence, by which nodes tell each other of their members: set both")
	}
	o.Prefix = cmp.Or(o.Prefix, "hub")
	o.QueueBytes = cmp.Or(o.QueueBytes, 1<<20)
	o.QueueMessages = cmp.Or(o.QueueMessages, math.MaxInt)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, 5*time.Second)
	o.Heartbeat = cmp.Or(o.Heartbeat, 2*time.Second)
	o.Timeout = cmp.Or(o.Timeout, 2*time.Second)
	o.Logger = cmp.Or(o.Logger, slog.Default())
	return nil
}
