//go:build unix

package chaos

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A session is one of Engine.IO at its node.
type session struct {
	sid, version string

	mu      sync.Mutex
	count   int      // messages that came
	packets []string // for the client
	wake    chan struct{}
	ended   chan struct{}
	polled  bool // a poll waits
	used    time.Time
}

func newSession(version string) *session {
	return &session{sid: rand.Text(), version: version, wake: make(chan struct{}, 1), ended: make(chan struct{}), used: time.Now()}
}

// opening returns the packet that opens the session. It names the boot of the node, since
// a client can't see the fields of a WebSocket's answer in every case.
func (s *session) opening(boot string) string {
	text, _ := json.Marshal(map[string]any{"sid": s.sid, "upgrades": []string{}, "pingInterval": 25000, "pingTimeout": 20000, "boot": boot})
	return "0" + string(text)
}

// echo counts a message and returns the packet that answers it: with its number, and how
// many the session has had.
func (s *session) echo(number string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	return fmt.Sprintf("4%s:%d", number, s.count)
}

func (s *session) push(packet string) {
	s.mu.Lock()
	s.packets = append(s.packets, packet)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take waits for packets for the client: with a ping if none has come within 20 s, a noop
// if the session ends. A second poll at the same time isn't ok.
func (s *session) take(ctx context.Context) (packets []string, ok bool) {
	s.mu.Lock()
	if s.polled {
		s.mu.Unlock()
		return nil, false
	}
	s.polled, s.used = true, time.Now()
	s.mu.Unlock()
	late := time.NewTimer(20 * time.Second)
	defer late.Stop()
	for {
		s.mu.Lock()
		if packets, s.packets = s.packets, nil; len(packets) > 0 {
			s.polled, s.used = false, time.Now()
			s.mu.Unlock()
			return packets, true
		}
		s.mu.Unlock()
		select {
		case <-s.wake:
			continue
		case <-s.ended:
			packets = []string{"6"}
		case <-late.C:
			packets = []string{"2"}
		case <-ctx.Done():
		}
		s.mu.Lock()
		s.polled, s.used = false, time.Now()
		s.mu.Unlock()
		return packets, true
	}
}

// sessions are those of a node that poll, by their sids. The zero value has none.
type sessions struct {
	mu  sync.Mutex
	all map[string]*session
}

// open makes a session, and forgets those that nobody has used for a while.
func (all *sessions) open(version string) *session {
	s := newSession(version)
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.all == nil {
		all.all = make(map[string]*session)
	}
	for sid, old := range all.all {
		old.mu.Lock()
		unused := !old.polled && time.Since(old.used) > time.Minute
		old.mu.Unlock()
		if unused {
			delete(all.all, sid)
		}
	}
	all.all[s.sid] = s
	return s
}

func (all *sessions) get(sid string) *session {
	all.mu.Lock()
	defer all.mu.Unlock()
	return all.all[sid]
}

func (all *sessions) end(s *session) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.all[s.sid] == s {
		delete(all.all, s.sid)
		close(s.ended)
	}
}

// encodePackets returns the body of a poll or of its answer, by the version of the
// protocol.
func encodePackets(version string, packets []string) string {
	if version == "4" {
		return strings.Join(packets, "\x1e")
	}
	var b strings.Builder
	for _, p := range packets {
		fmt.Fprintf(&b, "%d:%s", len(p), p) // all of it is ASCII
	}
	return b.String()
}

func decodePackets(version, body string) (packets []string) {
	if version == "4" {
		return strings.Split(body, "\x1e")
	}
	for body != "" {
		length, rest, ok := strings.Cut(body, ":")
		n, err := strconv.Atoi(length)
		if !ok || err != nil || n > len(rest) {
			return packets
		}
		packets, body = append(packets, rest[:n]), rest[n:]
	}
	return packets
}
