package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

// Goal: what the generator says of a peer is what the peer did. Method: peers within the process
// that stall, drop and repeat on purpose.

const (
	leaderName = "leader"
	// atStrike is the message that is due when the leader is killed.
	atStrike = failoverRate * beforeStrikeNs / 1_000_000_000
	waitNs   = 2_000_000_000
)

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
	return leaderName, nil
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

func loadOf(take peer) *Load {
	load := &Load{filling: make([]byte, 256), idle: "sleep", drainNs: 1_000_000_000, recoveryMaxNs: waitNs}
	load.driver = scripted{load, take}
	return load
}

func run(t *testing.T, take peer) fields {
	t.Helper()
	found, _, err := loadOf(take).steady(1_000, 0, 2)
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

// runFailover has a leader that does nothing but be killed.
func runFailover(t *testing.T, take peer) fields {
	t.Helper()
	leader := exec.Command("sleep", "60")
	if err := leader.Start(); err != nil {
		t.Fatal(err)
	}
	defer leader.Process.Kill()
	load := loadOf(take)
	load.pids = t.TempDir()
	pid := []byte(strconv.Itoa(leader.Process.Pid))
	if err := os.WriteFile(filepath.Join(load.pids, leaderName+".pid"), pid, 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := load.strike()
	if err != nil {
		t.Fatal(err)
	}
	if err := leader.Wait(); err == nil {
		t.Error("the leader was not killed")
	}
	return found
}

// What was on its way is lost, and that is waited for no longer than for the flow.
func TestAnOutageLastsUntilTheFlowIsBack(t *testing.T) {
	found := runFailover(t, func(load *Load, message *Message) {
		if message.index < atStrike || message.index >= atStrike+300 {
			deliver(load, message)
		}
	})
	outage := found["outage_ms"].(float64)
	if found["recovered"] != true || outage < 300 || outage > 600 || found["lost"] != int64(300) {
		t.Errorf("300 ms were lost: %v", found)
	}
}

func TestAnOutageThatNeverEndsLastsAsLongAsIsWaited(t *testing.T) {
	found := runFailover(t, func(load *Load, message *Message) {
		if message.index < atStrike {
			deliver(load, message)
		}
	})
	outage := found["outage_ms"].(float64)
	if found["recovered"] != false || outage < waitNs/1e6 || outage > waitNs/1e6+500 {
		t.Errorf("nothing came for as long as was waited: %v", found)
	}
	if found["received"] != int64(atStrike) || found["first_after_ms"] != -1.0 {
		t.Errorf("nothing came after the strike: %v", found)
	}
}
