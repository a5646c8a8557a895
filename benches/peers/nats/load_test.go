package main

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// Goal: what the generator says of a peer is what the peer did. Method: peers within the process
// that stall, drop and repeat on purpose.

type peer func(load *Load, message *Message)

type scripted struct {
	load *Load
	take peer
}

func (driver scripted) send(message *Message) error {
	driver.take(driver.load, message)
	return nil
}

func (driver scripted) leader() (string, error) {
	return "", errors.New("nobody leads")
}

func (driver scripted) versions() string {
	return "none"
}

func (driver scripted) settings() string {
	return "none"
}

func (driver scripted) aheadMax() int64 {
	return 1
}

func deliver(load *Load, message *Message) {
	load.received(message.body)
	message.acknowledged()
}

func run(t *testing.T, take peer) fields {
	t.Helper()
	load := &Load{filling: make([]byte, 256), idle: "sleep"}
	load.driver = scripted{load, take}
	found, _, err := load.steady(1_000, 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestAStallShowsInEverythingItDelayed(t *testing.T) {
	found := run(t, func(load *Load, message *Message) {
		if message.index == 1_000 {
			time.Sleep(100 * time.Millisecond)
		}
		deliver(load, message)
	})
	if p99 := found["p99_us"].(float64); p99 < 50_000 {
		t.Errorf("p99 is %.0f us: 100 messages were due during the stall", p99)
	}
	points := found["percentiles"].([][2]float64)
	if last := points[len(points)-1]; last != [2]float64{100, found["max_us"].(float64)} {
		t.Errorf("the curve ends at %v, not at the slowest", last)
	}
	rows := found["over_time"].([][4]float64)
	began := slices.IndexFunc(rows, func(row [4]float64) bool { return row[0] == 1 })
	if began < 0 || rows[began][1] < 40_000 {
		t.Errorf("half of the tenth of a second in which it began waited 50 ms: %v", rows)
	}
	if found["received"] != int64(2_000) || found["lost"] != int64(0) {
		t.Errorf("nothing was lost: %v", found)
	}
}

func TestLossesAndRepetitionsAreCounted(t *testing.T) {
	found := run(t, func(load *Load, message *Message) {
		if message.index%100 == 0 {
			if message.index%200 == 0 {
				message.acknowledged()
			}
			return
		}
		deliver(load, message)
		if message.index%40 == 1 {
			load.received(message.body)
		}
	})
	expected := map[string]int64{
		"sent": 2_000, "received": 1_980, "lost": 20, "acknowledged": 1_990, "acknowledged_lost": 10,
		"duplicated": 50,
	}
	for key, value := range expected {
		if found[key] != value {
			t.Errorf("%s is %v, not %d", key, found[key], value)
		}
	}
}
