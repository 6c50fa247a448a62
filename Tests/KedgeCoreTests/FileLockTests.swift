// Locks between processes, interruption, scratch files and the clock: what kedge needs of its host besides files.
import CTestSupport
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@Suite struct FileLockTests {
    private let directory: TemporaryDirectory
    private let time = ManualTime(now: Timestamp(secondsSince1970: 0))

    init() throws { directory = try TemporaryDirectory() }

    @Test("a second taker is told who holds the lock, and gets it once the holder lets go")
    func lock() throws {
        let path = RawPath(directory("lock"))
        var held: FileLock? = try FileLock(at: path, purpose: "backup of cluster \"main\"", time: time)
        let error = #expect(throws: KedgeError.self) {
            try FileLock(at: path, purpose: "expire of cluster \"main\"", time: time)
        }
        #expect(error?.code == .locked)
        #expect(error?.code.exitStatus == 4)
        #expect(error?.message == "could not take lock file \"\(path)\" for expire of cluster \"main\"")
        let holder = "process \(getpid()): backup of cluster \"main\", since 1970-01-01T00:00:00Z"
        #expect(error?.detail == "It is held by \(holder).")
        withExtendedLifetime(held) {}
        held = nil
        _ = try FileLock(at: path, purpose: "expire", time: time)
    }

    @Test("a lock that was let go is free although a child still has the descriptor")
    func childWithDescriptor() throws {
        let path = RawPath(directory("lock"))
        var held: FileLock? = try FileLock(at: path, purpose: "backup", time: time)
        let child = ctest_fork_paused()
        defer {
            kill(child, SIGKILL)
            waitpid(child, nil, 0)
        }
        withExtendedLifetime(held) {}
        held = nil
        _ = try FileLock(at: path, purpose: "backup", time: time)
    }

    @Test("a checkpoint passes until somebody asks to stop, and the first signal is remembered")
    func interruption() throws {
        let interruption = Interruption()
        try interruption.checkpoint()
        #expect(interruption.signal == nil)
        interruption.request(signal: SIGTERM)
        interruption.request(signal: SIGINT)
        #expect(interruption.signal == SIGTERM)
        let error = #expect(throws: KedgeError.self) { try interruption.checkpoint() }
        #expect(error?.code == .interrupted)
    }

    @Test("an interruptible sleep lasts as long as asked, and not at all after an interruption")
    func sleep() throws {
        let interruption = Interruption()
        try time.sleep(nanoseconds: 250_000_000, unless: interruption)
        #expect(time.sleeps == [100_000_000, 100_000_000, 50_000_000])
        interruption.request(signal: SIGINT)
        #expect(throws: KedgeError.self) { try time.sleep(nanoseconds: 1, unless: interruption) }
        #expect(time.sleeps.count == 3)
    }

    @Test("a scratch file holds what was appended and changed, and has no name")
    func scratch() throws {
        let file = try ScratchFile(in: RawPath(directory.path), random: SeededRandom(seed: 1))
        let block = [UInt8](repeating: 7, count: 200_000)
        #expect(try file.append([1, 2, 3]) == 0)
        #expect(try file.append(block) == 3)
        #expect(try file.append(block) == 200_003)
        try file.overwrite([9], at: 1)
        #expect(file.sizeBytes == 400_003)
        #expect(try file.read(count: 4, at: 0) == [1, 9, 3, 7])
        #expect(try file.read(count: 1, at: 400_002) == [7])
        #expect(throws: KedgeError.self) { try file.read(count: 2, at: 400_002) }
        #expect(throws: KedgeError.self) { try file.overwrite([1, 2], at: 400_002) }
        #expect(try Directory.entries(at: RawPath(directory.path)).isEmpty)
        try file.removeAll()
        #expect(file.sizeBytes == 0)
    }

    @Test("threads have every signal masked")
    func maskedSignals() throws {
        let masked = Monitor(false)
        let thread = try Thread(name: "a name that is too long") {
            var mask = sigset_t()
            pthread_sigmask(SIG_BLOCK, nil, &mask)
            let isMasked = sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGINT) == 1
            masked.update { $0 = isMasked }
        }
        thread.join()
        #expect(masked.update { $0 })
    }
}
