package socketio

import (
	"fmt"

	"github.com/limpet-go/limpet/bus/socketio/internal/jsvalue"
)

// Sharded is the adapter that createShardedAdapter of @socket.io/redis-adapter 8
// makes, with the sharded pub/sub of Redis 7.
type Sharded struct {
	// Prefix is the option channelPrefix of the nodes. "" means "socket.io".
	Prefix string
	// SubscriptionMode is the option subscriptionMode of the nodes.
	SubscriptionMode SubscriptionMode
}

// A SubscriptionMode says which rooms have a channel of their own. What is sent to a
// single such room reaches only the nodes that have sockets in it. A room whose name
// has 20 characters counts as the room of a single socket.
type SubscriptionMode int

const (
	SubscriptionModeDynamic        SubscriptionMode = iota // "dynamic": all rooms but those of single sockets
	SubscriptionModeStatic                                 // "static": no room
	SubscriptionModeDynamicPrivate                         // "dynamic-private": all rooms
)

func (s Sharded) check() error {
	if s.SubscriptionMode < SubscriptionModeDynamic || s.SubscriptionMode > SubscriptionModeDynamicPrivate {
		return fmt.Errorf("socketio: Sharded has no mode %d", s.SubscriptionMode)
	}
	return nil
}

func (s Sharded) sharded() bool                  { return true }
func (s Sharded) singleSockets() bool            { return false }
func (s Sharded) stream(_ string) *stream        { return nil }
func (s Sharded) requestFor(m *message) *message { return clusterRequest(m) }

func (s Sharded) channel(nsp string) string { return prefixed(s.Prefix) + "#" + nsp + "#" }

func (s Sharded) channels(nsp, uid string) (all, answers []string) {
	return []string{s.channel(nsp)}, []string{s.channel(nsp) + uid + "#"}
}

// roomChannel goes by the name of the room, since the sender doesn't know whether it
// is the ID of a socket.
func (s Sharded) roomChannel(nsp, room string) string {
	if s.SubscriptionMode == SubscriptionModeDynamicPrivate || s.SubscriptionMode == SubscriptionModeDynamic && !looksLikeSocketID(room) {
		return s.channel(nsp) + room + "#"
	}
	return ""
}

func (s Sharded) encode(m *message) ([]frame, error) {
	data, err := clusterData(m)
	if err != nil {
		return nil, err
	}
	encode := jsvalue.AppendJSON
	if m.kind.mayHoldBinary() && jsvalue.HasBinary(data) {
		encode = jsvalue.Timestamps.AppendMsgpack
	}
	return []frame{{
		channel: s.channelFor(m),
		data:    encode(nil, clusterMessage(m, data)),
		sharded: true,
	}}, nil
}

// channelFor returns the channel that a message is sent to.
func (s Sharded) channelFor(m *message) string {
	channel := s.channel(m.nsp)
	switch {
	case m.kind.answers():
		return channel + m.asker + "#"
	case m.kind == broadcast && m.id == "" && len(m.to) == 1:
		if room := s.roomChannel(m.nsp, m.to[0]); room != "" {
			return room
		}
	}
	return channel
}

func (s Sharded) decode(nsp, _ string, data []byte) (*message, error) {
	v, err := jsvalue.Parse(data)
	if err != nil {
		return nil, err
	}
	return readClusterMessage(nsp, v)
}
