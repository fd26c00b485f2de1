package socketio

import (
	"fmt"

	"github.com/limpet-go/limpet/bus/socketio/internal/jsvalue"
)

// fields are the properties of an object that was read. A property that is absent,
// or has another type than it should have, reads as the zero value: nodes of other
// versions and whoever else can reach Redis may send anything.
type fields map[string]any

func get[T any](f fields, key string) T {
	v, _ := f[key].(T)
	return v
}

func (f fields) text(key string) string   { s, _ := jsvalue.PropertyName(f[key]); return s }
func (f fields) object(key string) fields { return get[map[string]any](f, key) }
func (f fields) integer(key string) int   { return int(get[float64](f, key)) }

// kind returns the kind whose number in types is the property type, 0 if there is
// none.
func (f fields) kind(types []kind) kind {
	if t, ok := f["type"].(float64); ok && t >= 0 && t < float64(len(types)) {
		return types[int(t)]
	}
	return 0
}

// names returns a list of names of rooms. JavaScript allows numbers as names.
func (f fields) names(key string) (names []string) {
	for _, v := range get[[]any](f, key) {
		if s, ok := jsvalue.PropertyName(v); ok {
			names = append(names, s)
		}
	}
	return names
}

// target reads the object that all adapters call opts.
func (f fields) target() target {
	flags := f.object("flags")
	compress, given := flags["compress"].(bool)
	return target{
		to:           f.names("rooms"),
		except:       f.names("except"),
		volatile:     get[bool](flags, "volatile"),
		uncompressed: given && !compress,
		timeout:      get[float64](flags, "timeout"),
	}
}

// Types of a packet: socket.io-parser's PacketType.
const (
	eventPacket       = 2
	binaryEventPacket = 5
)

// readPacket returns the event of a packet: its name and its arguments.
func readPacket(packet fields) ([]any, error) {
	event := get[[]any](packet, "data")
	if kind := packet.integer("type"); kind != eventPacket && kind != binaryEventPacket || len(event) == 0 {
		return nil, fmt.Errorf("a packet of type %d with %d items isn't an event", kind, len(event))
	}
	return event, nil
}

// readSockets reads a list of sockets: objects that describe them, or IDs.
func readSockets(list []any) []Socket {
	sockets := make([]Socket, 0, len(list))
	for _, v := range list {
		switch v := v.(type) {
		case string:
			sockets = append(sockets, Socket{ID: v})
		case map[string]any:
			f := fields(v)
			sockets = append(sockets, Socket{
				ID: f.text("id"), Rooms: f.names("rooms"), Data: f["data"], Handshake: f.object("handshake"),
			})
		}
	}
	return sockets
}
