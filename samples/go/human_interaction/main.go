// Human_interaction lets an expense wait for a person's approval, but not for ever. It approves by itself; with argument reject it
// rejects, with ignore nobody answers.
//
// In the folder above this one, with a scheduler at localhost:8080 (or the address in MAINSPRING_ADDRESS):
//
//	go run ./human_interaction reject
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/microsoft/durabletask-go/api"
	"github.com/microsoft/durabletask-go/backend"
	"github.com/microsoft/durabletask-go/client"
	"github.com/microsoft/durabletask-go/task"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func Expense(ctx *task.OrchestrationContext) (any, error) {
	var amount int
	if err := ctx.GetInput(&amount); err != nil {
		return nil, err
	}
	if err := ctx.CallActivity(AskManager, task.WithActivityInput(amount)).Await(nil); err != nil {
		return nil, err
	}
	// Three days in real life. The wait survives restarts of everything.
	var isApproved bool
	err := ctx.WaitForSingleEvent("Approval", 3*time.Second).Await(&isApproved)
	switch {
	case errors.Is(err, task.ErrTaskCanceled):
		return "nobody answered", nil
	case err != nil:
		return nil, err
	case isApproved:
		return "paid", nil
	default:
		return "rejected", nil
	}
}

func AskManager(ctx task.ActivityContext) (any, error) {
	var amount int
	err := ctx.GetInput(&amount)
	fmt.Println("please approve", amount)
	return nil, err
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	address := cmp.Or(os.Getenv("MAINSPRING_ADDRESS"), "localhost:8080")
	connection, err := grpc.Dial(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	taskHub := client.NewTaskHubGrpcClient(connection, backend.DefaultLogger())

	registry := task.NewTaskRegistry()
	if err := registry.AddOrchestrator(Expense); err != nil {
		return err
	}
	if err := registry.AddActivity(AskManager); err != nil {
		return err
	}
	if err := taskHub.StartWorkItemListener(ctx, registry); err != nil {
		return err
	}

	id, err := taskHub.ScheduleNewOrchestration(ctx, "Expense", api.WithInput(120))
	if err != nil {
		return err
	}
	answer := "approve"
	if len(os.Args) > 1 {
		answer = os.Args[1]
	}
	if answer != "ignore" {
		if err := taskHub.RaiseEvent(ctx, id, "Approval", api.WithEventPayload(answer == "approve")); err != nil {
			return err
		}
	}
	state, err := taskHub.WaitForOrchestrationCompletion(ctx, id)
	if err != nil {
		return err
	}
	fmt.Println(state.SerializedOutput)
	return nil
}
