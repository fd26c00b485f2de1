package socketio

import (
	"errors"
	"fmt"
)

// The channels that Legacy and Current have in common.
type pubsub struct{ prefix string }

func (p pubsub) channel(nsp string) string { return prefixed(p.prefix) + "#" + nsp + "#" }
func (p pubsub) requestChannel(nsp string) string {
	return prefixed(p.prefix) + "-request#" + nsp + "#"
}
func (p pubsub) responseChannel(nsp string) string {
	return prefixed(p.prefix) + "-response#" + nsp + "#"
}

func (p pubsub) roomChannel(nsp, room string) string { return p.channel(nsp) + room + "#" }

// broadcast is the same in both: [uid, packet, opts] in MessagePack.
func (p pubsub) broadcast(m *message, d dates, packetType int64) (frame, error) {
	event, err := normalize(m.event)
	if err != nil {
		return frame{}, err
	}
	if packetType == binaryEventPacket && !hasBinary(event) {
		packetType = eventPacket
	}
	packet := object{{"type", packetType}, {"data", event}, {"nsp", m.nsp}}
	channel := p.channel(m.nsp)
	if len(m.to) == 1 {
		channel = p.roomChannel(m.nsp, m.to[0])
	}
	return frame{channel: channel, data: d.append(nil, []any{m.uid, packet, m.opts(true)})}, nil
}

func readBroadcast(nsp string, v any) (*message, error) {
	list, ok := v.([]any)
	if !ok || len(list) < 3 {
		return nil, errors.New("a broadcast isn't a list of three")
	}
	packet, _ := list[1].(map[string]any)
	opts, _ := list[2].(map[string]any)
	m := &message{kind: broadcast, nsp: nsp, target: fields(opts).target()}
	m.uid, _ = name(list[0])
	if to, given := packet["nsp"]; given && to != nsp {
		return nil, fmt.Errorf("a broadcast to the namespace %v", to)
	}
	var err error
	m.event, err = readPacket(packet)
	return m, err
}
