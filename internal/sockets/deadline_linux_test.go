package sockets_test

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// fill writes until the deadline that must be set.
func fill(c net.Conn) error {
	for {
		if _, err := c.Write(make([]byte, 1<<20)); err != nil {
			return err
		}
	}
}

// The deadline of a call that waits is that which was set last.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	const soon, never = 20 * time.Millisecond, time.Hour
	past := time.Unix(1, 0)
	in := func(d time.Duration) time.Time { return time.Now().Add(d) }
	for name, set := range map[string]func(set func(time.Time) error){
		"future":                 func(set func(time.Time) error) { set(in(soon)) },
		"past":                   func(set func(time.Time) error) { set(past) },
		"past, while it waits":   func(set func(time.Time) error) { time.AfterFunc(soon, func() { set(past) }) },
		"future, while it waits": func(set func(time.Time) error) { time.AfterFunc(soon, func() { set(in(soon)) }) },
		"sooner, while it waits": func(set func(time.Time) error) { set(in(never)); time.AfterFunc(soon, func() { set(in(soon)) }) },
		"later than the first":   func(set func(time.Time) error) { set(in(soon)); set(in(2 * soon)) },
		"later, while it waits":  func(set func(time.Time) error) { set(in(soon)); time.AfterFunc(soon/2, func() { set(in(2 * soon)) }) },
		"none, and then one":     func(set func(time.Time) error) { set(in(never)); set(time.Time{}); set(in(soon)) },
		"none, and then one, in waiting": func(set func(time.Time) error) {
			set(in(soon))
			time.AfterFunc(soon/2, func() { set(time.Time{}); set(in(soon)) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			both(t, func(t *testing.T, network string) {
				c, _ := pair(t, network)
				for range 2 { // the second time there are timers
					set(c.SetReadDeadline)
					if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("Read: %d, %v", n, err)
					}
					set(c.SetWriteDeadline)
					if err := fill(c); !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("Write: %v", err)
					}
				}
			})
		})
	}
}

// A deadline that was taken back ends nothing, though its timer may still fire.
func TestDeadlineTakenBack(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, "tcp")
	c.SetDeadline(time.Now().Add(10 * time.Millisecond))
	read := make(chan error)
	go func() {
		_, err := c.Read(make([]byte, 1))
		read <- err
	}()
	c.SetDeadline(time.Time{})
	select {
	case err := <-read:
		if !errors.Is(err, os.ErrDeadlineExceeded) { // the machine was busy
			t.Error(err)
		}
		return
	case <-time.After(50 * time.Millisecond):
	}
	peer.Write([]byte("x"))
	must(t, <-read)
}

// Behind the deadline nothing is read, even if it is there, until another one is set.
func TestDeadlineBeforeBytes(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, "tcp")
	peer.Write([]byte("x"))
	c.SetReadDeadline(time.Unix(1, 0))
	for range 2 {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read: %v", err)
		}
	}
	c.SetReadDeadline(time.Time{})
	_, err := c.Read(make([]byte, 1))
	must(t, err)
}

// What net/http does for each request costs no memory: to have a Read that waits fail.
func TestInterruptedReadAllocates(t *testing.T) {
	c, _ := pair(t, "tcp")
	began, ended := make(chan struct{}), make(chan error)
	go func() {
		defer close(ended)
		var b [1]byte
		for range began {
			_, err := c.Read(b[:])
			ended <- err
		}
	}()
	defer close(began)
	past := time.Unix(1, 0)
	if n := testing.AllocsPerRun(100, func() {
		c.SetReadDeadline(time.Time{})
		began <- struct{}{}
		c.SetReadDeadline(past)
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
