package discovery_test

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer/discovery"
)

const (
	typeA, typeAAAA, typeSRV  = 1, 28, 33
	serverFailure, noSuchName = 2, 3
)

// A nameServer answers over UDP (RFC 1035 section 4).
type nameServer struct {
	conn net.PacketConn

	mu      sync.Mutex
	records map[string][][]byte // by type and name, as in "A nodes.test."
	fails   map[uint16]bool     // types for which it fails
}

func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	n := &nameServer{conn: conn, records: make(map[string][][]byte), fails: make(map[uint16]bool)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 1500)
		for {
			size, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer := n.answer(buf[:size]); answer != nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-ended
	})
	return n
}

func (n *nameServer) answer(question []byte) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	var name strings.Builder
	i := 12
	for question[i] != 0 {
		end := i + 1 + int(question[i])
		name.Write(question[i+1 : end])
		name.WriteByte('.')
		i = end
	}
	kind := binary.BigEndian.Uint16(question[i+1:])
	records := n.records[key(kind, name.String())]
	code := byte(0)
	switch {
	case n.fails[kind]:
		records, code = nil, serverFailure
	case len(records) == 0 && len(n.records[key(typeA, name.String())])+len(n.records[key(typeAAAA, name.String())]) == 0:
		code = noSuchName
	}
	answer := append([]byte{question[0], question[1], 0x81, 0x80 | code, 0, 1, 0, byte(len(records)), 0, 0, 0, 0}, question[12:i+5]...)
	for _, data := range records {
		answer = append(answer, 0xc0, 12, byte(kind>>8), byte(kind), 0, 1, 0, 0, 0, 0, byte(len(data)>>8), byte(len(data)))
		answer = append(answer, data...)
	}
	return answer
}

func key(kind uint16, name string) string {
	return map[uint16]string{typeA: "A ", typeAAAA: "AAAA ", typeSRV: "SRV "}[kind] + name
}

// set makes records what the name has of a kind: addresses, or SRV records of package net.
func (n *nameServer) set(kind uint16, name string, records ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all [][]byte
	for _, r := range records {
		switch r := r.(type) {
		case string:
			all = append(all, netip.MustParseAddr(r).AsSlice())
		case net.SRV:
			data := binary.BigEndian.AppendUint16(nil, r.Priority)
			data = binary.BigEndian.AppendUint16(data, r.Weight)
			data = binary.BigEndian.AppendUint16(data, r.Port)
			for part := range strings.SplitSeq(strings.TrimSuffix(r.Target, "."), ".") {
				if part != "" {
					data = append(append(data, byte(len(part))), part...)
				}
			}
			all = append(all, append(data, 0))
		}
	}
	n.records[key(kind, name)] = all
}

func (n *nameServer) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

func (n *nameServer) source(name string, port int, srv bool) *discovery.DNS {
	return &discovery.DNS{
		Name: name, Port: port, SRV: srv, Interval: 20 * time.Millisecond,
		Resolver: &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "udp", n.conn.LocalAddr().String())
		}},
	}
}

func TestDNS(t *testing.T) {
	t.Parallel()
	n := newNameServer(t)
	told := watchSource(t, n.source("nodes.test.", 3000, false))
	told.is(t, "error: nodes.test. has no such records")
	n.set(typeA, "nodes.test.", "10.0.0.2", "10.0.0.1", "10.0.0.2")
	told.is(t, "10.0.0.1-3000@10.0.0.1:3000, 10.0.0.2-3000@10.0.0.2:3000")
	n.set(typeAAAA, "nodes.test.", "2001:db8::1")
	told.is(t, "10.0.0.1-3000@10.0.0.1:3000, 10.0.0.2-3000@10.0.0.2:3000, 2001:db8::1-3000@[2001:db8::1]:3000")

	// What fails for one kind of addresses doesn't make these addresses go.
	n.change(func() { n.fails[typeAAAA] = true })
	if got := told.await(t, "error: "); !strings.Contains(got, "set the network to ip4") {
		t.Error(got)
	}
	only4 := n.source("nodes.test.", 3000, false)
	only4.Network = "ip4"
	watchSource(t, only4).is(t, "10.0.0.1-3000@10.0.0.1:3000, 10.0.0.2-3000@10.0.0.2:3000")
	n.change(func() { n.fails[typeAAAA] = false })
	n.set(typeA, "nodes.test.")
	told.is(t, "2001:db8::1-3000@[2001:db8::1]:3000")
}

// Addresses that no backend can have aren't targets: name servers that block a name answer
// with 0.0.0.0, which would be the gateway's own machine.
func TestDNSAddressesOfNoBackend(t *testing.T) {
	t.Parallel()
	const service = "_http._tcp.nodes.test."
	n := newNameServer(t)
	n.set(typeA, "nodes.test.", "0.0.0.0", "10.0.0.1", "224.0.0.1", "255.255.255.255")
	n.set(typeAAAA, "nodes.test.", "::", "::ffff:0.0.0.0", "ff02::1", "2001:db8::1")
	n.set(typeSRV, service, net.SRV{Target: "nodes.test.", Port: 3000})
	told, srv := watchSource(t, n.source("nodes.test.", 3000, false)), watchSource(t, n.source(service, 0, true))
	told.is(t, "10.0.0.1-3000@10.0.0.1:3000, 2001:db8::1-3000@[2001:db8::1]:3000")
	srv.is(t, "nodes.test-3000@10.0.0.1:3000")

	n.set(typeA, "nodes.test.", "0.0.0.0")
	n.set(typeAAAA, "nodes.test.", "::")
	const want = "error: nodes.test. has no address that a backend can have, but 0.0.0.0"
	told.is(t, want)
	srv.is(t, want)
}

func TestSRV(t *testing.T) {
	t.Parallel()
	const name = "_http._tcp.nodes.test."
	n := newNameServer(t)
	told := watchSource(t, n.source(name, 0, true))
	told.await(t, "error: ")
	n.set(typeA, "node-0.test.", "10.0.0.9", "10.0.0.1")
	n.set(typeAAAA, "node-0.test.", "2001:db8::1")
	n.set(typeAAAA, "node-1.test.", "2001:db8::2")
	n.set(typeA, "spare.test.", "10.0.0.3")
	n.set(typeSRV, name,
		net.SRV{Target: "Node-1.test.", Port: 3001, Priority: 1, Weight: 5},
		net.SRV{Target: "node-0.test.", Port: 3000, Priority: 1},
		net.SRV{Target: "gone.test.", Port: 3000, Priority: 1},
		net.SRV{Target: "spare.test.", Port: 3000, Priority: 2})
	n.set(typeAAAA, "Node-1.test.", "2001:db8::2")
	told.is(t, "node-0.test-3000@10.0.0.1:3000, node-1.test-3001@[2001:db8::2]:3001 weight 5")

	n.set(typeA, "node-0.test.", "10.0.0.5") // the ID stays
	told.is(t, "node-0.test-3000@10.0.0.5:3000, node-1.test-3001@[2001:db8::2]:3001 weight 5")

	long := strings.Repeat("a", 60) + ".test."
	n.set(typeA, long, "10.0.0.7")
	n.set(typeSRV, name, net.SRV{Target: long, Port: 80})
	id, _, _ := strings.Cut(told.await(t, "@10.0.0.7:80"), "@")
	if len(id) != 64 || !strings.HasPrefix(id, "aaa") {
		t.Errorf("ID %q", id)
	}
}
