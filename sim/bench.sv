// Parts of the test bench. Files are read and written here, so that cocotb need not look at every clock cycle.
`default_nettype none

// Offers the words of FILE (hexadecimal, one to a line). A word is offered in the first cycle without `idle` and stays
// until it is taken. Meaning of `idle`: lutq_hw/timing.py.
module stream_source #(
    parameter WIDTH = 1,
    parameter FILE = ""
) (
    input wire clk, input wire rst, input wire idle,
    output wire valid, input wire ready, output reg [WIDTH-1:0] payload
);
    integer file, found;
    reg [WIDTH-1:0] following;
    reg more, offered;
    assign valid = offered | (more & ~idle);
    initial begin
        offered = 0;
        following = 0;
        file = $fopen(FILE, "r");
        found = $fscanf(file, "%h\n", following);
        payload = following;
        more = found == 1;
    end
    always @(posedge clk) if (!rst) begin
        offered <= valid & ~ready;
        if (valid & ready) begin
            found = $fscanf(file, "%h\n", following);
            payload <= following;
            more <= found == 1;
        end
    end
endmodule

// Writes "cycle word" to FILE for every transfer, and "! cycle" when the sender broke the stream rules: what is offered
// must stay until it is taken.
module stream_recorder #(
    parameter WIDTH = 1,
    parameter FILE = ""
) (
    input wire clk, input wire rst, input wire flush, input wire [31:0] cycle,
    input wire valid, input wire ready, input wire [WIDTH-1:0] payload
);
    integer file;
    reg waiting;
    reg [WIDTH-1:0] held;
    initial begin
        waiting = 0;
        held = 0;
        file = $fopen(FILE, "w");
    end
    always @(posedge clk) begin
        if (!rst) begin
            if ((valid !== 1'b0 && valid !== 1'b1) || (waiting && (valid !== 1'b1 || payload !== held)))
                $fwrite(file, "! %0d\n", cycle);
            if (valid === 1'b1 && ready === 1'b1) $fwrite(file, "%0d %h\n", cycle, payload);
            waiting <= valid & ~ready;
            held <= payload;
        end
        if (flush) $fflush(file);
    end
endmodule

// Counts cycles from the end of reset and repeats the pauses of FILE (one hexadecimal digit a cycle: 1 idle, 2 stall).
module stalls #(
    parameter PERIOD = 1,
    parameter FILE = ""
) (
    input wire clk, input wire rst,
    output reg [31:0] cycle, output wire idle, output wire stall
);
    reg [3:0] pauses [0:PERIOD-1];
    reg [31:0] index;
    assign idle = pauses[index][0];
    assign stall = pauses[index][1];
    initial begin
        $readmemh(FILE, pauses);
        cycle = 0;
        index = 0;
    end
    always @(posedge clk) if (!rst) begin
        cycle <= cycle + 1;
        index <= index == PERIOD - 1 ? 0 : index + 1;
    end
endmodule
`default_nettype wire
