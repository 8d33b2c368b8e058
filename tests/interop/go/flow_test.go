package interop

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/microsoft/durabletask-go/api"
	"github.com/microsoft/durabletask-go/task"
)

type orchestrators = map[string]task.Orchestrator
type activities = map[string]task.Activity

func plusOne(ctx task.ActivityContext) (any, error) {
	var number int
	err := ctx.GetInput(&number)
	return number + 1, err
}

func echo(ctx task.ActivityContext) (any, error) {
	var text string
	err := ctx.GetInput(&text)
	return text, err
}

func listens(ctx *task.OrchestrationContext) (any, error) {
	var heard string
	err := ctx.WaitForSingleEvent("go", -1).Await(&heard)
	return heard, err
}

func TestActivitiesRunOneAfterTheOther(t *testing.T) {
	// S-4.5: this SDK answers without completion tokens.
	h := freshHub(t)
	h.work(orchestrators{"chain": func(ctx *task.OrchestrationContext) (any, error) {
		var number int
		if err := ctx.GetInput(&number); err != nil {
			return nil, err
		}
		for step := 0; step < 10; step++ {
			if err := ctx.CallActivity("plusOne", task.WithActivityInput(number)).Await(&number); err != nil {
				return nil, err
			}
		}
		return number, nil
	}}, activities{"plusOne": plusOne})
	equal(t, output[int](h, h.start("chain", 5)), 15)
}

func TestManyActivitiesRunAtOnceAndAllAreCounted(t *testing.T) {
	// S-4.1: this SDK sends its actions in random order. S-13.6: it states no limit, so that the scheduler has one of 100.
	for _, width := range []int{100, 1000} {
		t.Run(fmt.Sprint(width), func(t *testing.T) {
			h := freshHub(t)
			var running, most atomic.Int64
			h.work(orchestrators{"fan": func(ctx *task.OrchestrationContext) (any, error) {
				var tasks []task.Task
				for number := 0; number < width; number++ {
					tasks = append(tasks, ctx.CallActivity("plusOne", task.WithActivityInput(number)))
				}
				sum := 0
				for _, task := range tasks {
					var number int
					if err := task.Await(&number); err != nil {
						return nil, err
					}
					sum += number
				}
				return sum, nil
			}}, activities{"plusOne": func(ctx task.ActivityContext) (any, error) {
				now := running.Add(1)
				defer running.Add(-1)
				for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
				}
				return plusOne(ctx)
			}})
			equal(t, output[int](h, h.start("fan", nil)), width*(width+1)/2)
			if most.Load() > 100 {
				t.Fatalf("%d activities at once", most.Load())
			}
		})
	}
}

func TestATimerFiresNoEarlierThanItIsDue(t *testing.T) {
	// S-6.1, S-6.2
	h := freshHub(t)
	h.work(orchestrators{"timer": func(ctx *task.OrchestrationContext) (any, error) {
		before := ctx.CurrentTimeUtc
		if err := ctx.CreateTimer(700 * time.Millisecond).Await(nil); err != nil {
			return nil, err
		}
		if err := ctx.CreateTimer(-time.Hour).Await(nil); err != nil {
			return nil, err
		}
		return ctx.CurrentTimeUtc.Sub(before).Milliseconds(), nil
	}}, nil)
	if elapsed := output[int64](h, h.start("timer", nil)); elapsed < 700 {
		t.Fatalf("fired after %d ms", elapsed)
	}
}

func TestATimerOfManyDaysStaysPending(t *testing.T) {
	// S-6.3: this SDK sends the whole delay.
	h := freshHub(t)
	h.work(orchestrators{"months": func(ctx *task.OrchestrationContext) (any, error) {
		return nil, ctx.CreateTimer(200 * 24 * time.Hour).Await(nil)
	}}, nil)
	id := h.start("months", nil)
	_, err := h.WaitForOrchestrationStart(h.ctx, id)
	must(t, err)
	equal(t, h.state(id).RuntimeStatus, api.RUNTIME_STATUS_RUNNING)
}

func TestAFailedActivityIsTriedAgainWithGrowingPauses(t *testing.T) {
	// S-5.4
	h := freshHub(t)
	var attempts atomic.Int64
	h.work(orchestrators{"retry": func(ctx *task.OrchestrationContext) (any, error) {
		before := ctx.CurrentTimeUtc
		policy := &task.RetryPolicy{MaxAttempts: 4, InitialRetryInterval: 100 * time.Millisecond, BackoffCoefficient: 2}
		if err := ctx.CallActivity("flaky", task.WithActivityRetryPolicy(policy)).Await(nil); err != nil {
			return nil, err
		}
		return ctx.CurrentTimeUtc.Sub(before).Milliseconds(), nil
	}}, activities{"flaky": func(task.ActivityContext) (any, error) {
		if attempts.Add(1) < 4 {
			return nil, errors.New("not yet")
		}
		return nil, nil
	}})
	if elapsed := output[int64](h, h.start("retry", nil)); elapsed < 700 {
		t.Fatalf("over after %d ms", elapsed)
	}
	equal(t, attempts.Load(), 4)
}

func TestAFailureReachesTheCallerAndFailsTheOrchestration(t *testing.T) {
	// S-4.14, S-5.3
	h := freshHub(t)
	h.work(orchestrators{
		"catches": func(ctx *task.OrchestrationContext) (any, error) {
			err := ctx.CallActivity("broken").Await(nil)
			return err.Error(), nil
		},
		"fails": func(ctx *task.OrchestrationContext) (any, error) {
			return nil, ctx.CallActivity("broken").Await(nil)
		},
	}, activities{"broken": func(task.ActivityContext) (any, error) { return nil, errors.New("ünlucky") }})
	if caught := output[string](h, h.start("catches", nil)); !strings.Contains(caught, "ünlucky") {
		t.Fatal(caught)
	}
	told := h.failed(h.start("fails", nil))
	equal(t, told.ErrorType, "*errors.errorString")
	if !strings.Contains(told.ErrorMessage, "ünlucky") {
		t.Fatal(told)
	}
}

func TestAnActivityThatPanicsFailsAlone(t *testing.T) {
	// S-5.3: the SDK turns the panic into a failure.
	h := freshHub(t)
	h.work(orchestrators{"fails": func(ctx *task.OrchestrationContext) (any, error) {
		return nil, ctx.CallActivity("panics").Await(nil)
	}, "echoes": echoes}, activities{"panics": func(task.ActivityContext) (any, error) { panic("oh no") }, "echo": echo})
	if told := h.failed(h.start("fails", nil)); !strings.Contains(told.ErrorMessage, "panic: oh no") {
		t.Fatal(told)
	}
	equal(t, output[string](h, h.start("echoes", "x")), "x")
}

func TestAnActivityThatNobodyHasFails(t *testing.T) {
	// S-5.9
	h := freshHub(t)
	h.work(orchestrators{"calls": func(ctx *task.OrchestrationContext) (any, error) {
		return nil, ctx.CallActivity("nobody").Await(nil)
	}}, nil)
	if told := h.failed(h.start("calls", nil)); !strings.Contains(told.ErrorMessage, "nobody") {
		t.Fatal(told)
	}
}

func TestAnOrchestratorThatNobodyHasFails(t *testing.T) {
	// A worker of this SDK takes every orchestration of its hub (S-13.9), and fails what it does not have.
	h := freshHub(t)
	h.work(orchestrators{"other": listens}, nil)
	if told := h.failed(h.start("nobody", nil)); !strings.Contains(told.ErrorMessage, "nobody") {
		t.Fatal(told)
	}
}

func parentOf(id string) task.Orchestrator {
	return func(ctx *task.OrchestrationContext) (any, error) {
		var told string
		call := ctx.CallSubOrchestrator("child", task.WithSubOrchestratorInput("x"))
		if id != "" {
			call = ctx.CallSubOrchestrator("child", task.WithSubOrchestratorInput("x"), task.WithSubOrchestrationInstanceID(id))
		}
		err := call.Await(&told)
		return told, err
	}
}

func child(ctx *task.OrchestrationContext) (any, error) {
	var text string
	if err := ctx.GetInput(&text); err != nil {
		return nil, err
	}
	return text + " by " + string(ctx.ID), ctx.CreateTimer(10 * time.Millisecond).Await(nil)
}

func TestAChildWithAnIdOfItsOwnGivesItsOutput(t *testing.T) {
	// S-7.4
	h := freshHub(t)
	h.work(orchestrators{"parent": parentOf("the-child"), "child": child}, nil)
	equal(t, output[string](h, h.start("parent", nil)), "x by the-child")
	equal(t, h.state("the-child").RuntimeStatus, api.RUNTIME_STATUS_COMPLETED)
}

func TestAChildWithoutAnIdGetsOne(t *testing.T) {
	// S-7.3: the scheduler makes it.
	h := freshHub(t)
	h.work(orchestrators{"parent": parentOf(""), "child": child}, nil)
	told := output[string](h, h.start("parent", nil))
	if len(told) != len("x by ")+32+5 {
		t.Fatal(told)
	}
}

func TestAFailedChildIsTriedAgainAndItsFailureReachesTheParent(t *testing.T) {
	// S-7.4, S-7.6: a retry takes the id of the failed child again.
	h := freshHub(t)
	var attempts atomic.Int64
	h.work(orchestrators{
		"parent": func(ctx *task.OrchestrationContext) (any, error) {
			policy := &task.RetryPolicy{MaxAttempts: 2, InitialRetryInterval: 10 * time.Millisecond}
			err := ctx.CallSubOrchestrator("child", task.WithSubOrchestrationInstanceID("failing-child"), task.WithSubOrchestrationRetryPolicy(policy)).Await(nil)
			return err.Error(), nil
		},
		"child": func(ctx *task.OrchestrationContext) (any, error) {
			attempts.Add(1)
			return nil, errors.New("no luck")
		},
	}, nil)
	if told := output[string](h, h.start("parent", nil)); !strings.Contains(told, "no luck") {
		t.Fatal(told)
	}
	equal(t, attempts.Load(), 2)
}

func TestAChildWhoseIdIsTakenFailsInItsParentAndDisturbsNobody(t *testing.T) {
	// S-7.6
	h := freshHub(t)
	h.work(orchestrators{"parent": func(ctx *task.OrchestrationContext) (any, error) {
		err := ctx.CallSubOrchestrator("listens", task.WithSubOrchestrationInstanceID("taken")).Await(nil)
		return err.Error(), nil
	}, "listens": listens}, nil)
	id := h.start("listens", nil, api.WithInstanceID("taken"))
	_, err := h.WaitForOrchestrationStart(h.ctx, id)
	must(t, err)
	if told := output[string](h, h.start("parent", nil)); !strings.Contains(told, "taken") {
		t.Fatal(told)
	}
	must(t, h.RaiseEvent(h.ctx, id, "go", api.WithEventPayload("undisturbed")))
	equal(t, output[string](h, id), "undisturbed")
}

func TestManyChildrenWithoutIdsRunAtOnce(t *testing.T) {
	// S-7.3: the ids that the scheduler makes differ.
	h := freshHub(t)
	h.work(orchestrators{"parent": func(ctx *task.OrchestrationContext) (any, error) {
		var children []task.Task
		for number := 0; number < 100; number++ {
			children = append(children, ctx.CallSubOrchestrator("child", task.WithSubOrchestratorInput("x")))
		}
		told := map[string]bool{}
		for _, child := range children {
			var by string
			if err := child.Await(&by); err != nil {
				return nil, err
			}
			told[by] = true
		}
		return len(told), nil
	}, "child": child}, nil)
	equal(t, output[int](h, h.start("parent", nil)), 100)
}

func TestANewGenerationBeginsWithItsInputAndTheEventsThatNobodyTook(t *testing.T) {
	// S-3.17, S-3.18, S-3.21
	h := freshHub(t)
	h.work(orchestrators{"sums": func(ctx *task.OrchestrationContext) (any, error) {
		var sum, more int
		if err := ctx.GetInput(&sum); err != nil {
			return nil, err
		}
		if err := ctx.WaitForSingleEvent("add", -1).Await(&more); err != nil {
			return nil, err
		}
		if sum += more; sum < 10 {
			ctx.ContinueAsNew(sum, task.WithKeepUnprocessedEvents())
		}
		return sum, nil
	}}, nil)
	id := h.start("sums", 0)
	_, err := h.WaitForOrchestrationStart(h.ctx, id)
	must(t, err)
	must(t, h.SuspendOrchestration(h.ctx, id, ""))
	for number := 0; number < 10; number++ {
		must(t, h.RaiseEvent(h.ctx, id, "add", api.WithEventPayload(1)))
	}
	must(t, h.ResumeOrchestration(h.ctx, id, ""))
	equal(t, output[int](h, id), 10)
}

func TestEventsThatNobodyTookAreForgottenUnlessToldToKeepThem(t *testing.T) {
	// S-3.18: only what the SDK carries over goes on; what has not been delivered yet does.
	h := freshHub(t)
	h.work(orchestrators{"forgets": func(ctx *task.OrchestrationContext) (any, error) {
		var round int
		if err := ctx.GetInput(&round); err != nil {
			return nil, err
		}
		if round == 0 {
			if err := ctx.WaitForSingleEvent("next", -1).Await(nil); err != nil {
				return nil, err
			}
			ctx.ContinueAsNew(1)
			return nil, nil
		}
		err := ctx.WaitForSingleEvent("kept", 200*time.Millisecond).Await(nil)
		return errors.Is(err, task.ErrTaskCanceled), nil
	}}, nil)
	id := h.start("forgets", 0)
	_, err := h.WaitForOrchestrationStart(h.ctx, id)
	must(t, err)
	must(t, h.RaiseEvent(h.ctx, id, "kept"))
	must(t, h.RaiseEvent(h.ctx, id, "next"))
	equal(t, output[bool](h, id), true)
}

func TestTheCustomStatusIsSetReplacedAndCleared(t *testing.T) {
	// S-3.23: this SDK always sends one; empty clears it.
	h := freshHub(t)
	h.work(orchestrators{"shows": func(ctx *task.OrchestrationContext) (any, error) {
		ctx.SetCustomStatus("first")
		if err := ctx.WaitForSingleEvent("a", -1).Await(nil); err != nil {
			return nil, err
		}
		ctx.SetCustomStatus("second")
		if err := ctx.WaitForSingleEvent("b", -1).Await(nil); err != nil {
			return nil, err
		}
		ctx.SetCustomStatus("")
		return nil, nil
	}}, nil)
	id := h.start("shows", nil)
	status := func(wanted string) func() bool {
		return func() bool { return h.state(id).SerializedCustomStatus == wanted }
	}
	until(t, "the first status", status("first"))
	must(t, h.RaiseEvent(h.ctx, id, "a"))
	until(t, "the second status", status("second"))
	must(t, h.RaiseEvent(h.ctx, id, "b"))
	equal(t, h.ended(id).SerializedCustomStatus, "")
}
