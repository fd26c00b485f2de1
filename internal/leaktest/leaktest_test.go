package leaktest

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

func sit(end <-chan struct{}) { <-end }

const sitting = "github.com/limpet-go/limpet/internal/leaktest.sit"

// tests stands for a package's tests.
type tests func() int

func (t tests) Run() int { return t() }

// What stays is told from what ends in a moment and what may stay.
func TestRun(t *testing.T) {
	for _, tt := range []struct {
		name   string
		code   int
		stay   bool
		ignore []string
		want   int
	}{
		{"nothing is left", 0, false, nil, 0},
		{"one is left", 0, true, nil, 1},
		{"one is left that may", 0, true, []string{sitting}, 0},
		{"one is left, another may", 0, true, []string{sitting + "down", "sit", "testing.tRunner"}, 1},
		{"the tests failed", 2, true, nil, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			end := make(chan struct{})
			if tt.stay {
				defer close(end)
			} else {
				time.AfterFunc(20*time.Millisecond, func() { close(end) })
			}
			got := Run(tests(func() int {
				go sit(end)
				return tt.code
			}), tt.ignore...)
			if got != tt.want {
				t.Errorf("exit code %d, want %d", got, tt.want)
			}
		})
	}
}

const creator = "github.com/limpet-go/limpet/internal/leaktest.TestMany"

// However many goroutines there are, all are seen.
func TestMany(t *testing.T) {
	end := make(chan struct{})
	defer close(end)
	const many = 10_000
	for range many {
		go sit(end)
	}
	// Some of them haven't begun to sit, but all tell who created them.
	found := slices.DeleteFunc(others(), func(stack string) bool { return !strings.Contains(stack, "created by "+creator) })
	if len(found) != many {
		t.Errorf("%d goroutines of %d", len(found), many)
	}
}
