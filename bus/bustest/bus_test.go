package bustest_test

import (
	"testing"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/bustest"
)

// A bus of your own has a test like this one.
func TestMine(t *testing.T) {
	t.Parallel()
	mine := &bus.Memory{}
	bustest.TestBus(t, func() bus.Bus { return mine }, bustest.Options{Queue: 1024})
}
