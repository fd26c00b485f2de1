package socketio

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"

	"github.com/limpet-go/limpet/bus/socketio/internal/jsvalue"
)

// Streams is the adapter of @socket.io/redis-streams-adapter 0.3. What is sent to
// clients is an entry of a Redis stream. Requests of nodes to each other use
// pub/sub; with Heartbeats, which is for version 0.2, they are in the stream, too.
type Streams struct {
	// Stream is the option streamName of the nodes. "" means "socket.io".
	Stream string
	// Count is the option streamCount of the nodes: the number of streams that
	// namespaces are spread over. 0 means 1.
	Count int
	// MaxLen is the option maxLen of the nodes: about how many entries a stream
	// keeps. 0 means 10,000.
	MaxLen int64
	// Prefix is the option channelPrefix of the nodes. "" means "socket.io".
	Prefix string
	// Sharded is the option useShardedPubSub of the nodes.
	Sharded bool
	// OnlyPlaintext is the option onlyPlaintext of the nodes: binary data isn't
	// searched for in what is added to a stream, and arrives as {"type": "Buffer"}.
	OnlyPlaintext bool
	// Heartbeats is set for nodes with version 0.2, which has no pub/sub. They learn
	// of each other by heartbeats, so a [Cluster] needs a second to learn of the
	// others after it has started, and each request of an [Emitter] does.
	Heartbeats bool
}

func (s Streams) check() error {
	if s.Count < 0 || s.MaxLen < 0 {
		return errors.New("socketio: Streams has a negative Count or MaxLen")
	}
	if s.Heartbeats && (s.Count > 1 || s.Sharded) {
		return errors.New("socketio: Streams with Heartbeats has one stream and no pub/sub")
	}
	return nil
}

func (s Streams) maxLen() int64                  { return cmp.Or(s.MaxLen, 10_000) }
func (s Streams) sharded() bool                  { return s.Sharded }
func (s Streams) singleSockets() bool            { return false }
func (s Streams) requestFor(m *message) *message { return clusterRequest(m) }
func (s Streams) roomChannel(_, _ string) string { return "" }
func (s Streams) channel(nsp string) string      { return prefixed(s.Prefix) + "#" + nsp + "#" }

func (s Streams) channels(nsp, uid string) (all, answers []string) {
	if s.Heartbeats {
		return nil, nil
	}
	return []string{s.channel(nsp)}, []string{s.channel(nsp) + uid + "#"}
}

func (s Streams) stream(nsp string) *stream {
	return &stream{key: s.key(nsp), maxLen: s.maxLen(), heartbeats: s.Heartbeats, decode: s.decodeEntry}
}

// keys returns the keys of all streams. A node reads all of them.
func (s Streams) keys() []string {
	if s.Count <= 1 {
		return []string{prefixed(s.Stream)}
	}
	keys := make([]string, s.Count)
	for i := range keys {
		keys[i] = prefixed(s.Stream) + "-" + strconv.Itoa(i)
	}
	return keys
}

// key returns the key of a namespace's stream. In the npm package the hash may be
// negative, and it then writes to a stream that no node reads. That isn't copied.
func (s Streams) key(nsp string) string {
	keys := s.keys()
	var hash int32
	for _, unit := range utf16.Encode([]rune(nsp)) {
		hash = hash*31 + int32(unit)
	}
	i := int(hash) % len(keys)
	return keys[max(i, -i)]
}

func (s Streams) encode(m *message) ([]frame, error) {
	data, err := clusterData(m)
	if err != nil {
		return nil, err
	}
	if !s.Heartbeats && m.isEphemeral() {
		f := frame{channel: s.channel(m.nsp), sharded: s.Sharded}
		if m.kind.answers() {
			f.channel += m.asker + "#"
		}
		f.data = jsvalue.Timestamps.AppendMsgpack(nil, clusterMessage(m, data))
		return []frame{f}, nil
	}
	f := frame{channel: s.key(m.nsp), maxLen: s.maxLen(), entry: []string{
		"uid", m.uid, "nsp", m.nsp, "type", strconv.Itoa(int(m.kind)),
	}}
	switch {
	case data == nil:
	case !s.OnlyPlaintext && m.kind.mayHoldBinary() && jsvalue.HasBinary(data):
		f.entry = append(f.entry, "data", base64.StdEncoding.EncodeToString(jsvalue.Timestamps.AppendMsgpack(nil, data)))
	default:
		f.entry = append(f.entry, "data", string(jsvalue.AppendJSON(nil, data)))
	}
	return []frame{f}, nil
}

// isEphemeral tells whether a message goes by pub/sub because it needn't be kept, as
// the npm package decides it.
func (m *message) isEphemeral() bool {
	return m.kind.answers() || m.kind == serverSideEmit || m.kind == fetchSockets || m.kind == broadcast && m.id != ""
}

func (s Streams) decode(nsp, _ string, data []byte) (*message, error) {
	v, err := jsvalue.ParseMsgpack(data)
	if err != nil {
		return nil, err
	}
	return readClusterMessage(nsp, v)
}

// decodeEntry reads an entry of a stream, which may be for any namespace.
func (s Streams) decodeEntry(entry map[string]any) (*message, error) {
	f := fields(entry)
	t, err := strconv.Atoi(f.text("type"))
	if err != nil {
		return nil, fmt.Errorf("an entry of type %q", f.text("type"))
	}
	m := &message{kind: kind(t), uid: f.text("uid"), nsp: f.text("nsp")}
	var v any
	switch data := f.text("data"); {
	case data == "":
	case strings.HasPrefix(data, "{"):
		v, err = jsvalue.Parse([]byte(data))
	default:
		var packed []byte
		if packed, err = base64.StdEncoding.DecodeString(data); err == nil {
			v, err = jsvalue.ParseMsgpack(packed)
		}
	}
	if err != nil {
		return nil, err
	}
	o, _ := v.(map[string]any)
	return m, readClusterData(m, o)
}
