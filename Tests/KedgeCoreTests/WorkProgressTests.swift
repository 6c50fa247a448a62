// Steps begin at zero, and what workers add arrives whatever thread it comes from.
import KedgeCore
import Testing

@Suite struct WorkProgressTests {
    @Test("each step counts from zero towards its own total")
    func steps() throws {
        let progress = WorkProgress()
        #expect(progress.snapshot == .init(step: "", number: 0, doneBytes: 0, totalBytes: nil))
        progress.begin("copying", totalBytes: 1000)
        let threads = try (0..<4).map { _ in
            try Thread(name: "advance") { for _ in 0..<100 { progress.advance(2) } }
        }
        for thread in threads { thread.join() }
        #expect(progress.snapshot == .init(step: "copying", number: 1, doneBytes: 800, totalBytes: 1000))
        progress.begin("syncing")
        progress.advance(7)
        #expect(progress.snapshot == .init(step: "syncing", number: 2, doneBytes: 7, totalBytes: nil))
    }
}
