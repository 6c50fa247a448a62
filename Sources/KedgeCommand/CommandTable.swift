// All commands, in the order in which help texts list them.

/// The commands of this version.
package enum CommandTable {
    package static let all: [Command] = [
        InitCommand.command, CheckCommand.command, ArchivePushCommand.command, ArchiveGetCommand.command,
        ArchivePrefetchCommand.command,
        BackupCommand.command, InfoCommand.command, RestoreCommand.command, VerifyCommand.command,
        DrillCommand.command, ExpireCommand.command, UnexpireCommand.command, PinCommand.command,
        UnpinCommand.command, CatCommand.command,
        KeyListCommand.command, KeyAddCommand.command, KeyRotateCommand.command, KeyRewrapCommand.command,
        KeyRemoveCommand.command, HelpCommand.command,
    ]
}
