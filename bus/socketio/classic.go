package socketio

import (
	"errors"
	"fmt"

	"github.com/limpet-go/limpet/bus/socketio/internal/jsvalue"
)

// classic is what Legacy and PubSub have in common: a channel for broadcasts, with
// one beside for each room, a channel for requests and one for answers.
type classic struct{ prefix string }

func (c classic) channel(nsp string) string { return prefixed(c.prefix) + "#" + nsp + "#" }
func (c classic) requestChannel(nsp string) string {
	return prefixed(c.prefix) + "-request#" + nsp + "#"
}
func (c classic) responseChannel(nsp string) string {
	return prefixed(c.prefix) + "-response#" + nsp + "#"
}

func (c classic) roomChannel(nsp, room string) string { return c.channel(nsp) + room + "#" }

// broadcast returns the frame of a broadcast without acknowledgements: [uid, packet,
// opts] in MessagePack.
func (c classic) broadcast(m *message, d jsvalue.Dates, packetType int64) (frame, error) {
	event, err := jsvalue.Normalize(m.event)
	if err != nil {
		return frame{}, err
	}
	if packetType == binaryEventPacket && !jsvalue.HasBinary(event) {
		packetType = eventPacket
	}
	packet := object{{"type", packetType}, {"data", event}, {"nsp", m.nsp}}
	channel := c.channel(m.nsp)
	if len(m.to) == 1 {
		channel = c.roomChannel(m.nsp, m.to[0])
	}
	return frame{channel: channel, data: d.AppendMsgpack(nil, []any{m.uid, packet, m.opts(true)})}, nil
}

// readBroadcast reads what broadcast encodes.
func readBroadcast(nsp string, v any) (*message, error) {
	list, ok := v.([]any)
	if !ok || len(list) < 3 {
		return nil, errors.New("a broadcast isn't a list of three")
	}
	packet, _ := list[1].(map[string]any)
	opts, _ := list[2].(map[string]any)
	m := &message{kind: broadcast, nsp: nsp, target: fields(opts).target()}
	m.uid, _ = jsvalue.PropertyName(list[0])
	if to, given := packet["nsp"]; given && to != nsp {
		return nil, fmt.Errorf("a broadcast to the namespace %v", to)
	}
	var err error
	m.event, err = readPacket(packet)
	return m, err
}
