package handover_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/handover"
)

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pair returns both ends of a connection.
func pair(t *testing.T) (a, b *handover.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	ok(t, err)
	var conns [2]*handover.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "")
		c, err := net.FileConn(f)
		ok(t, err)
		f.Close()
		conns[i] = handover.NewConn(c.(*net.UnixConn))
		t.Cleanup(func() { conns[i].Close() })
	}
	return conns[0], conns[1]
}

// A fault is what happens at the message with that name, the n-th of them.
type fault struct {
	name string
	n    int
	what string // see faults
}

// faults are what may happen to a message: the process that sends it dies before or after
// that, the one that it is for dies before it has read it, or one of them is stopped.
var faults = []string{"sender dies before", "sender dies behind", "receiver dies before", "stopped"}

// A run is one hand-over through a man in the middle.
type run struct {
	gone     bool // the predecessor has given its files
	took     bool // the successor has taken them
	giveErr  error
	takeErr  error
	complete bool // the successor has got the last batch
	taken    bool // the predecessor has read taken
	dead     string
}

const (
	predecessor = "predecessor"
	successor   = "successor"
)

// taker is a successor that has room for so many files, or for all with 0.
type taker struct {
	room  int
	state string
	err   error
}

func (k *taker) State(part []byte) error { k.state += string(part); return nil }

func (k *taker) Room(files int) error {
	if k.room > 0 && files > k.room {
		return errors.New("no room")
	}
	return nil
}

func (k *taker) Check([]byte, []handover.Item) error { return k.err }

// items returns n items of two files each, whose records are numbers of so many digits.
func items(t *testing.T, n, digits int) []handover.Item {
	t.Helper()
	all := make([]handover.Item, n)
	for i := range all {
		all[i].Record = fmt.Appendf(nil, "%0*d", digits, i)
		for range 2 {
			fd, err := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
			ok(t, err)
			t.Cleanup(func() { syscall.Close(fd) })
			all[i].Files = append(all[i].Files, fd)
		}
	}
	return all
}

// handOver runs one hand-over with a fault.
func handOver(t *testing.T, all []handover.Item, f fault) (r run) {
	t.Helper()
	giver, left := pair(t)
	right, receiver := pair(t)
	const step, take = 150 * time.Millisecond, 400 * time.Millisecond
	giver.SetTimes(step, 10*step, take)
	receiver.SetTimes(step, 10*step, take)

	var mu sync.Mutex
	counts := make(map[string]int)
	cut := func(dead string) bool {
		r.dead = dead
		left.Close()
		right.Close()
		return false
	}
	relay := func(from, to *handover.Conn, sender, other string) {
		for {
			behind := false
			err := handover.Forward(from, to, func(name string) bool {
				mu.Lock()
				defer mu.Unlock()
				counts[name]++
				hit := name == f.name && counts[name] == f.n
				if hit && f.what == "sender dies before" {
					return cut(sender)
				}
				if hit && f.what == "receiver dies before" {
					return cut(other)
				}
				r.complete = r.complete || name == "batch" && counts[name] == 2
				r.taken = r.taken || name == "taken"
				if !hit {
					return true
				}
				switch f.what {
				case "sender dies behind":
					behind = true
				case "stopped":
					mu.Unlock()
					time.Sleep(3 * take / 2)
					mu.Lock()
				}
				return true
			})
			if behind {
				mu.Lock()
				cut(sender)
				mu.Unlock()
			}
			if err != nil {
				from.Close() // what has ended on one side ends on the other
				to.Close()
				return
			}
		}
	}
	var both, middle sync.WaitGroup
	middle.Go(func() { relay(left, right, predecessor, successor) })
	middle.Go(func() { relay(right, left, successor, predecessor) })
	both.Go(func() {
		r.gone, r.giveErr = giver.Give([]byte("state"), all)
		giver.Close()
	})
	both.Go(func() {
		var got []handover.Item
		var state []byte
		state, got, r.takeErr = receiver.Take(&taker{}, take)
		r.took = r.takeErr == nil
		if r.took {
			check(t, got, all)
			if string(state) != "state" {
				t.Errorf("the state is %q", state)
			}
		}
		receiver.Close()
	})
	both.Wait()
	middle.Wait()
	return r
}

// check compares what was received with what was sent, and closes the descriptors.
func check(t *testing.T, got, want []handover.Item) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d items, want %d", len(got), len(want))
		return
	}
	for i, it := range got {
		if string(it.Record) != string(want[i].Record) || len(it.Files) != 2 {
			t.Errorf("item %d is %.20q with %d files", i, it.Record, len(it.Files))
		}
		for _, fd := range it.Files {
			if err := syscall.Close(fd); err != nil {
				t.Errorf("item %d: %v", i, err)
			}
		}
	}
}

// Whatever happens at whatever message, the files have one owner among the processes that
// live. They have none only if the predecessor has died before the successor had them all.
func TestOneOwner(t *testing.T) {
	t.Parallel()
	steps := []fault{
		{name: "offer", n: 1}, {name: "accept", n: 1}, {name: "batch", n: 1}, {name: "ack", n: 1}, {name: "batch", n: 2},
		{name: "ack", n: 2}, {name: "received", n: 1}, {name: "commit", n: 1}, {name: "taken", n: 1},
	}
	for _, f := range steps {
		for _, what := range faults {
			f := fault{f.name, f.n, what}
			t.Run(fmt.Sprint(f.name, " ", f.n, " ", f.what), func(t *testing.T) {
				t.Parallel()
				r := handOver(t, items(t, 130, 4), f) // more than 126 items are two batches
				switch r.dead {
				case "":
					if r.gone != r.took {
						t.Errorf("the predecessor has given: %v (%v); the successor has taken: %v (%v)", r.gone, r.giveErr, r.took, r.takeErr)
					}
				case predecessor:
					if r.took != r.complete {
						t.Errorf("the last batch has come: %v, and the successor has taken: %v (%v)", r.complete, r.took, r.takeErr)
					}
				case successor:
					if r.gone != r.taken {
						t.Errorf("taken has come: %v, and the predecessor has given: %v (%v)", r.taken, r.gone, r.giveErr)
					}
				}
			})
		}
	}
}

// Many items, and large ones, arrive whole.
func TestManyItems(t *testing.T) {
	for _, c := range []struct{ n, digits int }{{0, 1}, {1, 200_000}, {1, 0}, {3, 100_000}, {300, 1000}, {127, 20}} {
		r := handOver(t, items(t, c.n, c.digits), fault{})
		if !r.gone || !r.took {
			t.Errorf("%d items of %d bytes: %v, %v", c.n, c.digits, r.giveErr, r.takeErr)
		}
	}
}

// What a successor can't take stays, and both sides say why.
func TestRefused(t *testing.T) {
	t.Parallel()
	for _, k := range []*taker{{room: 3}, {err: errors.New("unknown record")}} {
		giver, receiver := pair(t)
		done := make(chan error, 1)
		go func() {
			_, _, err := receiver.Take(k, 0)
			done <- err
		}()
		gone, err := giver.Give(nil, items(t, 2, 4))
		var aborted *handover.Aborted
		if other := <-done; gone || other == nil || !errors.As(err, &aborted) || aborted.Reason != other.Error() {
			t.Errorf("gone: %v; %v; %v", gone, err, other)
		}
	}
}

// The opening: listeners, states, and a second offer. The end without one is io.EOF.
func TestSession(t *testing.T) {
	t.Parallel()
	giver, receiver := pair(t)
	served := make(chan error, 1)
	go func() {
		err := errors.Join(giver.Welcome(items(t, 2, 3)), giver.AwaitReady(time.Minute), giver.SendState([]byte("a")), giver.SendState([]byte("b")))
		for _, n := range []int{3, 0, 1} {
			gone, failed := giver.Give(nil, items(t, n, 4))
			if !gone {
				err = errors.Join(err, failed, errors.New("not gone"))
			}
		}
		served <- err
		giver.Close()
	}()
	listeners, err := receiver.Hello()
	ok(t, err)
	check(t, listeners, items(t, 2, 3))
	ok(t, receiver.Ready())
	k := &taker{}
	for _, n := range []int{3, 0, 1} {
		_, got, err := receiver.Take(k, time.Minute)
		ok(t, err)
		check(t, got, items(t, n, 4))
	}
	if k.state != "ab" {
		t.Errorf("the state is %q", k.state)
	}
	ok(t, <-served)
	if _, _, err := receiver.Take(k, 0); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

// What isn't of the protocol, or of another version, is refused in words.
func TestStrangers(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n":                             "what came isn't of this protocol",
		"\x01\x00\x00\x00\x00\x00\x14limpet takeover\n\x00\x07\x00\x09": "versions 7 to 9",
		"\x01\x00\x00\x00\x00\x00\x14something else..\x00\x01\x00\x01":  "what came isn't of this protocol",
		"\x03\x00\x00\x00\x00\x00\x00":                                  "there came ready where hello was expected",
	} {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		ok(t, err)
		f := os.NewFile(uintptr(fds[0]), "")
		conn, err := net.FileConn(f)
		ok(t, err)
		f.Close()
		c := handover.NewConn(conn.(*net.UnixConn))
		_, err = syscall.Write(fds[1], []byte(text))
		ok(t, err)
		if err := c.Welcome(nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
		c.Close()
		syscall.Close(fds[1])
	}
}

// The first process listens, on a socket that only its user can open; the next one is
// connected to it; after it has died without a word, the next one listens.
func TestOpen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "takeover")
	c, l, err := handover.Open(t.Context(), path)
	ok(t, err)
	if c != nil {
		t.Fatal("connected to nobody")
	}
	info, err := os.Stat(path)
	ok(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	c, none, err := handover.Open(t.Context(), path)
	ok(t, err)
	if none != nil {
		t.Fatal("two listen")
	}
	c.Close()
	l.Close()
	c, l, err = handover.Open(t.Context(), path)
	ok(t, err)
	if c != nil {
		t.Fatal("connected to nobody")
	}
	l.Close()

	ok(t, os.Remove(path))
	ok(t, os.WriteFile(path, nil, 0o600))
	dir := t.TempDir()
	for name, tt := range map[string]struct{ path, says string }{
		"a file":              {path, "no socket: name a file that isn't there yet"},
		"a folder":            {dir, "no socket: name a file that isn't there yet"},
		"in a missing folder": {filepath.Join(dir, "missing", "takeover"), "no such file or directory: make the folder"},
		"longer than can be":  {filepath.Join(dir, strings.Repeat("x", 108)), "107 bytes at most"},
		"without a name":      {"", "no path"},
	} {
		if _, _, err := handover.Open(t.Context(), tt.path); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", name, err, tt.says)
		}
	}

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	open := make(chan error, 1)
	locked, err := os.Open(dir) // as any user may open a folder
	ok(t, err)
	defer locked.Close()
	ok(t, syscall.Flock(int(locked.Fd()), syscall.LOCK_EX))
	go func() {
		_, l, err := handover.Open(ctx, filepath.Join(dir, "takeover"))
		if err == nil {
			err = l.Close()
		}
		open <- err
	}()
	select {
	case err := <-open:
		if err != nil {
			t.Errorf("a folder that a stranger has locked: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("a stranger who has locked the folder holds a process up")
	}
	lock, err := os.OpenFile(filepath.Join(dir, "takeover.lock"), os.O_RDWR, 0)
	ok(t, err)
	defer lock.Close()
	ok(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
	if _, _, err := handover.Open(ctx, filepath.Join(dir, "takeover")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("another process of this user has the lock: %v", err)
	}
}
