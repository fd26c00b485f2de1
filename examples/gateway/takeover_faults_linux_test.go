package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/process"
)

var stops = flag.Bool("stops", false, "stop processes for 12 s, too, at each step of a hand-over")

// steps are the messages of a hand-over, by their kinds: see internal/handover.
var steps = []struct {
	kind byte
	name string
}{{5, "offer"}, {6, "accept"}, {7, "batch"}, {8, "ack"}, {9, "received"}, {10, "commit"}, {11, "taken"}}

// A middleman stands between a predecessor and its successor, and does something at a step.
type middleman struct {
	old, new *net.UnixConn
	kind     byte
	at       func() (pass bool)
	once     sync.Once
}

// stand waits at path for a successor, connects it with the predecessor, and passes their
// messages on.
func (m *middleman) stand(l *net.UnixListener, predecessor string) error {
	var err error
	if m.new, err = l.AcceptUnix(); err != nil {
		return err
	}
	if m.old, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: predecessor, Net: "unix"}); err != nil {
		return err
	}
	var both sync.WaitGroup
	both.Go(func() { m.relay(m.old, m.new) })
	both.Go(func() { m.relay(m.new, m.old) })
	both.Wait()
	return nil
}

// relay passes messages on until an end is gone, and then has the other one be gone, too.
func (m *middleman) relay(from, to *net.UnixConn) {
	defer from.Close()
	defer to.Close()
	head, oob := make([]byte, 7), make([]byte, 4096)
	for {
		n, oobn, _, _, err := from.ReadMsgUnix(head, oob)
		if err != nil || n < len(head) {
			return
		}
		var files []int
		if messages, err := syscall.ParseSocketControlMessage(oob[:oobn]); err == nil && len(messages) > 0 {
			files, _ = syscall.ParseUnixRights(&messages[0])
		}
		body := make([]byte, binary.BigEndian.Uint32(head[3:]))
		_, err = io.ReadFull(from, body)
		pass := err == nil
		if pass && head[0] == m.kind {
			m.once.Do(func() { pass = m.at() })
		}
		if pass {
			_, _, err = to.WriteMsgUnix(append(slices.Clone(head), body...), syscall.UnixRights(files...), nil)
		}
		for _, fd := range files {
			syscall.Close(fd)
		}
		if !pass || err != nil {
			return
		}
	}
}

// Whatever process is killed at whatever step, the other one has all tunnels, or, if the
// predecessor dies before its successor has everything, the port at least. The one that lives
// is the only one that reads and writes them.
func TestTakeoverFaults(t *testing.T) {
	t.Parallel()
	for i, step := range steps {
		for _, victim := range []string{"predecessor", "successor"} {
			t.Run(step.name+", kill the "+victim, func(t *testing.T) {
				t.Parallel()
				lost := victim == "predecessor" && i < 3 // the batch doesn't come
				interfere(t, step.kind, lost, nil, func(p map[string]*process.Process) bool {
					p[victim].Kill()
					return false
				})
			})
			if !*stops {
				continue
			}
			t.Run(step.name+", stop the "+victim, func(t *testing.T) {
				t.Parallel()
				goesOn := make(chan bool)
				interfere(t, step.kind, false, goesOn, func(p map[string]*process.Process) bool {
					pid := p[victim].PID()
					syscall.Kill(pid, syscall.SIGSTOP)
					time.AfterFunc(12*time.Second, func() {
						syscall.Kill(pid, syscall.SIGCONT)
						time.AfterFunc(2*time.Second, func() { close(goesOn) })
					})
					return true
				})
			})
		}
	}
}

// interfere has a gateway take over from another one, with at being called at a step, and looks
// whether all tunnels go on afterwards, and once more when goesOn is closed, unless that is nil.
// lost tells that they may not.
func interfere(t *testing.T, kind byte, lost bool, goesOn <-chan bool, at func(map[string]*process.Process) (pass bool)) {
	b := startCounter(t, time.Second)
	dir := t.TempDir()
	args := func(path string) []string {
		return []string{"-listen", "127.0.0.1:0", "-backend", "a=" + b.URL, "-takeover", filepath.Join(dir, path), "-drain", "1s"}
	}
	old := gateway(t, nil, args("old")...)
	addr := address(t, old)
	clients := make([]*rawClient, 3)
	for i := range clients {
		clients[i] = newRawClient(t, addr)
		clients[i].send(frameOf("before"))
		clients[i].expect("before")
		clients[i].send(frameOf("on its way")[:9])
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "new"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	all := map[string]*process.Process{"predecessor": old, "successor": gateway(t, nil, args("new")...)}
	hit := false
	m := &middleman{kind: kind, at: func() bool { hit = true; return at(all) }}
	if err := m.stand(l, filepath.Join(dir, "old")); err != nil { // until the hand-over is over in one way or the other
		t.Error(err)
	}
	if !hit {
		t.Fatal("the step didn't come")
	}
	if !lost {
		for _, c := range clients {
			c.send(frameOf("on its way")[9:])
			c.expect("on its way")
		}
		count(clients)
		if goesOn != nil {
			<-goesOn
			count(clients)
		}
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: process.Patience}
	if code, _ := ask(t, client, "http://"+addr); code != 200 {
		t.Errorf("a new client got %d", code)
	}
}

// count has each client send numbers, and get each once, in order.
func count(clients []*rawClient) {
	for i, c := range clients {
		for n := range 20 {
			text := fmt.Sprint("message ", i, ".", n)
			c.send(frameOf(text))
			c.expect(text)
		}
	}
}
