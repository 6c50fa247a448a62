// Texts for people: errors, tables, sizes, durations.
import KedgeCore
import Testing

@testable import KedgeCommand

@Suite struct OutputRendererTests {
    @Test("an error is printed part by part, causes after the detail")
    func errorText() {
        let root = KedgeError(.noSpace, "could not write", detail: "Full.", hint: "Free space.")
        let error = root.wrapped("could not store object \"x\"").wrapped("could not archive", detail: "Twice.")
        #expect(
            OutputRenderer.errorLines(error) == [
                "kedge: error: could not archive", "detail: Twice.", "cause: could not store object \"x\"",
                "cause: could not write", "detail: Full.", "hint: Free space.", "code: no-space",
            ])
    }

    @Test("what comes from outside cannot move the cursor or fake a line")
    func printable() {
        #expect(
            OutputRenderer.printable("a\nb\t\u{1B}[2J\u{7F}\u{9B}\u{202E}\r\n")
                == "a\\u{A}b\\u{9}\\u{1B}[2J\\u{7F}\\u{9B}\\u{202E}\\u{D}\\u{A}")
        #expect(OutputRenderer.printable("Größe 🐘") == "Größe 🐘")
    }

    @Test("columns line up on their side and lines have no white space at their end")
    func table() {
        var table = TextTable([.left("NAME"), .right("SIZE"), .left("NOTE")])
        table.add(["a", "16 MB", ""])
        table.add(["längster", "1 GB", "x\ny"])
        #expect(
            table.lines == [
                "NAME       SIZE  NOTE",
                "a         16 MB",
                "längster   1 GB  x\\u{A}y",
            ])
    }

    @Test(
        "sizes count in steps of 1024, as pg_size_pretty does",
        arguments: [
            (0, "0 bytes"), (1, "1 byte"), (1023, "1023 bytes"), (1024, "1 kB"), (1536, "1.5 kB"), (10_188, "9.9 kB"),
            (10_239, "10 kB"), (10_240, "10 kB"), (10_800, "11 kB"), (1_048_000, "1023 kB"), (1_048_575, "1 MB"),
            (16 << 20, "16 MB"), (1 << 30, "1 GB"), (3 << 29, "1.5 GB"), (UInt64.max, "16 EB"), (1 << 60, "1 EB"),
        ] as [(UInt64, String)])
    func sizes(_ bytes: UInt64, _ text: String) {
        #expect(HumanText.size(bytes) == text)
    }

    @Test(
        "rates are never nonsense",
        arguments: [(.nan, "0 bytes/s"), (-1, "0 bytes/s"), (.infinity, "0 bytes/s"), (2e6, "1.9 MB/s")])
    func rates(_ rate: Double, _ text: String) {
        #expect(HumanText.rate(bytesPerSecond: rate) == text)
    }

    @Test(
        "durations show two units at most",
        arguments: [
            (.zero, "0 ms"), (.milliseconds(45), "45 ms"), (.milliseconds(1849), "1.8 s"), (.seconds(47), "47 s"),
            (.seconds(60), "1 min"), (.seconds(200), "3 min 20 s"), (.seconds(7500), "2 h 5 min"),
            (.seconds(273_700), "3 d 4 h"), (.seconds(-5), "0 ms"),
        ] as [(Duration, String)])
    func durations(_ duration: Duration, _ text: String) {
        #expect(HumanText.duration(duration) == text)
    }

    @Test(
        "a duration is written in the largest unit that fits, as the configuration takes it",
        arguments: [
            (.seconds(90), "90s"), (.seconds(120), "2min"), (.seconds(7200), "2h"), (.seconds(172_800), "2d"),
            (.milliseconds(1500), "1500ms"), (.zero, "0s"),
        ] as [(Duration, String)])
    func exactDurations(_ duration: Duration, _ text: String) throws {
        #expect(HumanText.exactDuration(duration) == text)
        #expect(try ConfigurationValueKind.duration(.zero ... .seconds(1_000_000)).parse(text) == .duration(duration))
    }
}
