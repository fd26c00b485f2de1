package socketio

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/bus/socketio/internal/jsvalue"
	"github.com/limpet-go/limpet/internal/need"
	"github.com/limpet-go/limpet/internal/process"
)

// vectors are what the npm packages send, recorded by testdata/vectors.js.
type vectors struct {
	Messages []messageVector
	Values   []valueVector
}

type messageVector struct {
	Name, Package, Adapter string
	Exact                  bool
	Frame                  struct {
		Command, Channel string
		Data             []byte
		MaxLen           int64
		Entry            []string
	}
	Want struct {
		Kind, NSP, UID, Asker, ID, SocketID string
		To, Except, Rooms                   []string
		Volatile, Uncompressed, Close       bool
		Timeout                             float64
		Count                               int
		Event                               []any
		Value                               any
		Sockets                             []Socket
	}
}

type valueVector struct {
	Codec, Name string
	Exact       bool
	Data        []byte
	Want        any
}

func readVectors(t testing.TB) (v vectors) {
	t.Helper()
	data, err := os.ReadFile("testdata/vectors.json")
	if err == nil {
		err = json.Unmarshal(data, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// adapters are the configurations in the script.
var adapters = map[string]Adapter{
	"legacy":                  Legacy{},
	"legacy3":                 Legacy{V3: true},
	"current":                 PubSub{},
	"current-specific":        PubSub{SpecificResponses: true},
	"sharded-static":          Sharded{SubscriptionMode: SubscriptionModeStatic},
	"sharded-dynamic":         Sharded{},
	"sharded-dynamic-private": Sharded{SubscriptionMode: SubscriptionModeDynamicPrivate},
	"streams":                 Streams{},
	"streams-sharded":         Streams{Stream: "chat", Count: 4, MaxLen: 100, Prefix: "chat", Sharded: true},
}

var kinds = map[string]kind{
	"initialHeartbeat": initialHeartbeat, "heartbeat": heartbeat, "broadcast": broadcast, "join": join, "leave": leave,
	"disconnect": disconnect, "fetchSockets": fetchSockets, "socketList": socketList, "serverSideEmit": serverSideEmit,
	"serverSideAnswer": serverSideAnswer, "clientCount": clientCount, "ack": ack, "adapterClose": adapterClose,
	"socketIDs": socketIDs, "socketIDList": socketIDList, "allRooms": allRooms, "roomList": roomList, "done": done,
	"roomsOf": roomsOf, "customRequest": customRequest, "customAnswer": customAnswer,
}

func (v *messageVector) message() *message {
	w := &v.Want
	m := &message{
		kind: kinds[w.Kind], nsp: w.NSP, uid: w.UID, asker: w.Asker, id: w.ID,
		target: target{to: w.To, except: w.Except, volatile: w.Volatile, uncompressed: w.Uncompressed, timeout: w.Timeout},
		rooms:  w.Rooms, close: w.Close, count: w.Count, value: untag(w.Value), socketID: w.SocketID,
	}
	if w.Event != nil {
		m.event = untag(w.Event).([]any)
	}
	for _, s := range w.Sockets {
		s.Data = untag(s.Data)
		m.sockets = append(m.sockets, s)
	}
	return m
}

// untag undoes what the script's function tag does.
func untag(v any) any {
	switch v := v.(type) {
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = untag(v[i])
		}
		return list
	case map[string]any:
		if s, ok := v["$binary"].(string); ok {
			data, _ := base64.StdEncoding.DecodeString(s)
			return data
		}
		if ms, ok := v["$date"].(float64); ok {
			return time.UnixMilli(int64(ms)).UTC()
		}
		if s, ok := v["$number"].(string); ok {
			f, _ := strconv.ParseFloat(s, 64)
			return f
		}
		m := make(map[string]any)
		for k := range v {
			m[k] = untag(v[k])
		}
		return m
	}
	return v
}

func TestMessages(t *testing.T) {
	t.Parallel()
	seen := make(map[string]int)
	for _, v := range readVectors(t).Messages {
		seen[v.Adapter]++
		t.Run(v.Adapter+"/"+v.Name, func(t *testing.T) {
			a, want := adapters[v.Adapter], v.message()
			if got, err := v.decode(a); err != nil {
				t.Errorf("decode: %v", err)
			} else if !same(got, want) {
				t.Errorf("decoded\n%.500v, want\n%.500v", got, want)
			}
			frames, err := a.encode(want)
			if err != nil || len(frames) != 1 {
				t.Fatalf("encode: %d frames, %v", len(frames), err)
			}
			f := frames[0]
			if command := v.Frame.Command; f.channel != v.Frame.Channel || f.sharded != (command == "SPUBLISH") || (f.entry != nil) != (command == "XADD") {
				t.Errorf("goes to %s, sharded %v; want %s to %s", f.channel, f.sharded, command, v.Frame.Channel)
			}
			if v.Exact && (!bytes.Equal(f.data, v.Frame.Data) || !slices.Equal(f.entry, v.Frame.Entry) || f.maxLen != v.Frame.MaxLen) {
				t.Errorf("encoded\n%.500q %q, want\n%.500q %q", f.data, f.entry, v.Frame.Data, v.Frame.Entry)
			}
		})
	}
	for name := range adapters {
		if seen[name] == 0 {
			t.Errorf("no vector of %s", name)
		}
	}
}

func (v *messageVector) decode(a Adapter) (*message, error) {
	if v.Frame.Entry == nil {
		return a.decode(v.Want.NSP, v.Frame.Channel, v.Frame.Data)
	}
	entry := make(map[string]any)
	for pair := range slices.Chunk(v.Frame.Entry, 2) {
		entry[pair[0]] = pair[1]
	}
	return a.stream(v.Want.NSP).decode(entry)
}

// same compares messages. It ignores the asker, which only the channel of an answer
// says, and accepts what is ambiguous: a list of sockets that is empty, or that has
// only IDs.
func same(got, want *message) bool {
	w := *want
	w.asker = ""
	if w.kind == socketIDList && got.kind == socketList {
		w.kind = socketList
	}
	if len(w.sockets) == 0 && len(got.sockets) == 0 {
		w.sockets = got.sockets
	}
	return reflect.DeepEqual(got, &w)
}

func TestValues(t *testing.T) {
	t.Parallel()
	for _, v := range readVectors(t).Values {
		t.Run(v.Codec+"/"+v.Name, func(t *testing.T) {
			want := untag(v.Want)
			got, err := jsvalue.ParseMsgpack(v.Data)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(numbers(got), numbers(want)) {
				t.Errorf("read %v, want %v", got, want)
			}
			if !v.Exact {
				return
			}
			tree, err := jsvalue.Normalize(want)
			if err != nil {
				t.Fatal(err)
			}
			if got := datesOf(v.Codec).AppendMsgpack(nil, tree); !bytes.Equal(got, v.Data) {
				t.Errorf("written\n%.500x, want\n%.500x", got, v.Data)
			}
		})
	}
}

func datesOf(codec string) jsvalue.Dates {
	return jsvalue.Dates(strings.HasPrefix(codec, "notepack-2"))
}

// numbers replaces each NaN by a value that equals itself.
func numbers(v any) any {
	if list, ok := v.([]any); ok {
		for i, e := range list {
			if f, ok := e.(float64); ok && math.IsNaN(f) {
				list[i] = "NaN"
			}
		}
	}
	return v
}

// The installed npm packages still send what the vectors say.
func TestVectorsAreFresh(t *testing.T) {
	t.Parallel()
	node := need.Modules(t, "testdata")
	script := exec.CommandContext(t.Context(), node, "vectors.js")
	script.Dir = "testdata"
	now, err := script.Output()
	if err != nil {
		t.Fatal(err)
	}
	then, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(now, then) {
		t.Error("testdata/vectors.js writes something else than testdata/vectors.json")
	}
}

// The npm packages read what is written in another way than they write it.
func TestPackagesReadIt(t *testing.T) {
	t.Parallel()
	node := need.Modules(t, "testdata")
	p := process.Start(t, exec.Command(node, "testdata/vectors.js", "decode"))
	long := make([]any, 70_000)
	large := make(map[string]any)
	for i := range long {
		long[i] = float64(i % 3)
		large[strconv.Itoa(i)] = true
	}
	values := []any{
		float64(1 << 53), -float64(1 << 60), 1e300, 5e-324, math.MaxFloat64,
		strings.Repeat("ö", 40), strings.Repeat("x", 70_000), bytes.Repeat([]byte{1}, 70_000), long, large,
		time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), time.UnixMilli(-1).UTC(), time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC),
	}
	type answer struct{ Value any }
	answers := 0
	for _, codec := range []string{"notepack-2.1", "notepack-2.2", "notepack-2.3", "notepack-3.0", "msgpack"} {
		for _, want := range values {
			tree, err := jsvalue.Normalize(want)
			if err != nil {
				t.Fatal(err)
			}
			p.Write(t, map[string]any{"codec": codec, "data": datesOf(codec).AppendMsgpack(nil, tree)})
			answers++
			all := process.Await(t, p, "an answer", func(a []answer) bool { return len(a) == answers })
			if got := untag(all[answers-1].Value); !reflect.DeepEqual(got, want) {
				t.Errorf("%s reads %.100v, want %.100v", codec, got, want)
			}
		}
	}
	for n, want := range map[any]float64{int64(1<<62 + 1): 1 << 62, uint64(math.MaxUint64): 1 << 64, int64(math.MinInt64): -1 << 63} {
		p.Write(t, map[string]any{"codec": "notepack-3.0", "data": jsvalue.Timestamps.AppendMsgpack(nil, n)})
		answers++
		all := process.Await(t, p, "an answer", func(a []answer) bool { return len(a) == answers })
		if got := all[answers-1].Value; got != want {
			t.Errorf("%d is read as %v, want %v", n, got, want)
		}
	}
}
