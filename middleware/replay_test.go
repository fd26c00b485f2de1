package middleware

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestReplay(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("0123456789", 10)
	for _, tt := range []struct {
		name        string
		limit, read int // the first attempt reads so much
		again       bool
	}{
		{"nothing read", 10, 0, true},
		{"part", 50, 20, true},
		{"all that is kept", 50, 50, true},
		{"one more", 50, 51, false},
		{"whole body", 100, 100, true},
		{"nothing is kept", 0, 0, true},
		{"nothing is kept, one read", 0, 1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &replay{src: io.NopCloser(strings.NewReader(text)), limit: tt.limit}
			first, err := p.open()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(first, make([]byte, tt.read)); err != nil {
				t.Fatal(err)
			}
			second, err := p.open()
			if (err == nil) != tt.again {
				t.Fatalf("second attempt: %v, want it possible: %v", err, tt.again)
			}
			if err != nil {
				return
			}
			if got, err := io.ReadAll(second); string(got) != text || err != nil {
				t.Errorf("second attempt read %q, %v", got, err)
			}
			if _, err := first.Read(make([]byte, 1)); err == nil {
				t.Error("the first attempt still reads")
			}
		})
	}
}

// The end of a body comes in a read of its own, which brings nothing to keep.
func TestReplayOfExactlyTheLimit(t *testing.T) {
	t.Parallel()
	p := &replay{src: io.NopCloser(strings.NewReader("0123456789")), limit: 10}
	first, err := p.open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, first); err != nil {
		t.Fatal(err)
	}
	if !p.again() {
		t.Error("it can't be sent again")
	}
	second, err := p.open()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(second); string(got) != "0123456789" || err != nil {
		t.Errorf("second attempt read %q, %v", got, err)
	}
}

// An attempt reads beyond the limit while the next one begins: that one gets the
// whole body or none.
func TestReplayRaceForTheLimit(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("0123456789", 10)
	for range 5000 {
		p := &replay{src: io.NopCloser(strings.NewReader(text)), limit: 20}
		first, _ := p.open()
		_, _ = io.ReadFull(first, make([]byte, 20))
		ready, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			close(ready)
			_, _ = first.Read(make([]byte, 10))
		}()
		<-ready
		if second, err := p.open(); err == nil {
			if got, err := io.ReadAll(second); err == nil && string(got) != text {
				t.Fatalf("second attempt read %q", got)
			}
		}
		<-done
	}
}

// What a read brings that was under way when its attempt was given up reaches
// the next attempt.
func TestReplayOverlap(t *testing.T) {
	t.Parallel()
	pr, pw := io.Pipe()
	src := &starting{Reader: pr, began: make(chan struct{}, 10)}
	p := &replay{src: src, limit: 100}
	first, _ := p.open()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = first.Read(make([]byte, 10))
	}()
	<-src.began
	second, err := p.open()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = io.WriteString(pw, "first")
		_, _ = io.WriteString(pw, "second")
		pw.Close()
	}()
	var got bytes.Buffer
	if _, err := io.Copy(&got, second); err != nil || got.String() != "firstsecond" {
		t.Errorf("%q, %v", got.String(), err)
	}
	<-done
}

type starting struct {
	io.Reader
	began chan struct{}
}

func (s *starting) Read(b []byte) (int, error) {
	s.began <- struct{}{}
	return s.Reader.Read(b)
}

func (s *starting) Close() error { return nil }

// interrupter is a server's writer whose read deadline ends the reading of a pipe.
type interrupter struct {
	http.ResponseWriter
	pw *io.PipeWriter
}

func (i *interrupter) SetReadDeadline(time.Time) error {
	return i.pw.CloseWithError(errors.New("interrupted"))
}

func TestReplayJoin(t *testing.T) {
	t.Parallel()
	pr, pw := io.Pipe()
	src := &starting{Reader: pr, began: make(chan struct{}, 1)}
	p := &replay{src: src, limit: 100, rc: http.NewResponseController(&interrupter{pw: pw})}
	r, _ := p.open()
	got := make(chan error, 1)
	go func() {
		_, err := r.Read(make([]byte, 10))
		got <- err
	}()
	<-src.began
	p.join()
	if err := <-got; err != http.ErrBodyReadAfterClose {
		t.Errorf("the read ended with %v", err)
	}
	if _, err := r.Read(make([]byte, 1)); err == nil {
		t.Error("it reads on after the join")
	}
}
