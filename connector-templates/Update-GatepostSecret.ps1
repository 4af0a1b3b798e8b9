#Requires -Version 5.1

<#
.SYNOPSIS
    Changes the values of the secret header and the loop header in Exchange's mail flow rules, without a message lost.

.DESCRIPTION
    Exchange and Gatepost cannot change at the same moment, so a value is first known on both sides, then used, then forgotten. The order
    matters: a loop value that Exchange does not know yet sends mail round, and a secret that Gatepost does not know yet is refused.

    1. gatepost.toml: secret_header value = NEW, previous = OLD; loop_header value = OLD, previous = NEW. Reload Gatepost: it takes both, and still writes the old loop value.
    2. gatepost connector render, then this script with -Stage Both: the word lists of both rules hold both loop values, and the routing rule sends the new secret.
       Wait until Exchange uses it: an hour is ample.
    3. gatepost.toml: loop_header value = NEW, previous = OLD. Reload Gatepost: it writes the new value.
    4. When 'gatepost queue list' shows no mail from before that reload: gatepost connector render, then this script with -Stage NewOnly: the old values leave the word lists.
    5. gatepost.toml: drop both previous. Reload, and render once more.

    To give a rotation up before step 4: both headers value = OLD, previous = NEW; reload, render, -Stage Both, and wait as in step 2. When nothing
    from before is queued, drop both previous, reload and render; then Repair-GatepostConnector.ps1 takes NEW out of the rules.

    Each rendering writes gatepost-secrets.json anew: in steps 2, 4 and 5 bring that file (or the whole folder) to where the scripts run.

    A value that is in a word list and not in the secrets file stays with -Stage Both (with a warning) and goes with -Stage NewOnly. NewOnly
    is refused while a rule does not hold the new values yet, and with a file from before step 3: the comment of the clean-up rule remembers, by
    eight digits of its SHA-256, which loop value was in use when Both began.

    Before the first change the state of the tenant is written to a folder beside the script (or below -ExportFolder), for its owner alone:
    it holds the old values.

.PARAMETER Stage
    Both: old and new values are known. NewOnly: the old ones are forgotten.

.PARAMETER RoutingRuleName
    Name of the mail flow rule that sends mail to Gatepost.

.PARAMETER CleanUpRuleName
    Name of the mail flow rule that takes the loop header off mail that has come back.

.PARAMETER SecretHeaderName
    Header that the routing rule sets: secret_header of gatepost.toml.

.PARAMETER LoopHeaderName
    Header that marks mail which was with Gatepost: loop_header of gatepost.toml.

.PARAMETER SecretFile
    The file with the values of the secret headers that render wrote beside the scripts. For its owner alone.

.PARAMETER ExportFolder
    Folder for the export of the state before the first change, each in a folder of its own; without it, beside the script.

.PARAMETER TenantId
    The tenant's directory ID (a GUID). The script refuses to read or change any other tenant.

.PARAMETER UserPrincipalName
    Account to sign in with, interactively.

.PARAMETER DelegatedOrganization
    The customer's tenant, for a partner with delegated administration.

.PARAMETER AppId
    Application to sign in as, with -Organization and a certificate.

.PARAMETER Organization
    The tenant's name that ends in .onmicrosoft.com, for an application or a managed identity.

.PARAMETER CertificateThumbprint
    Certificate of the application in the certificate store (Windows).

.PARAMETER CertificateFilePath
    Certificate of the application as a .pfx file.

.PARAMETER CertificatePassword
    Password of that file.

.PARAMETER ManagedIdentity
    Signs in as the managed identity of the machine, with -Organization.

.PARAMETER ManagedIdentityAccountId
    Client ID of a managed identity that the machine does not have by itself.

.PARAMETER ExchangeEnvironmentName
    The cloud that the tenant is in; O365Default where nothing is given.

.EXAMPLE
    .\Update-GatepostSecret.ps1 -Stage Both -WhatIf

    Says how many values the word lists would hold; no value is shown.

.EXAMPLE
    .\Update-GatepostSecret.ps1 -Stage Both -UserPrincipalName admin@contoso.com

    Both values are known to Exchange from now on.

.EXAMPLE
    .\Update-GatepostSecret.ps1 -Stage NewOnly -AppId 00000000-0000-0000-0000-000000000000 -Organization contoso.onmicrosoft.com -CertificateThumbprint $thumbprint

    As an application, without a person.

.EXAMPLE
    foreach ($customer in 'contoso', 'fabrikam') { & ".\$customer\Update-GatepostSecret.ps1" -Stage Both -AppId $app -Organization "$customer.onmicrosoft.com" -CertificateThumbprint $thumbprint }

    One tenant after another, each with the folder that was rendered for it. A session is opened and closed for each; a folder of another tenant is refused.

.OUTPUTS
    One object for each thing looked at: Type, Name, Action, Changes, Message. No value of a secret header stands in it.

.NOTES
    Exchange Administrator, or Organization Management. An application needs Exchange.ManageAsApp and the role Exchange Administrator.
#>
[CmdletBinding(SupportsShouldProcess = $true, ConfirmImpact = 'Medium', PositionalBinding = $false)]
[OutputType([pscustomobject])]
param(
    [Parameter(Mandatory = $true)]
    [ValidateSet('Both', 'NewOnly')]
    [string]$Stage,

    [ValidateLength(1, 64)]
    [string]$RoutingRuleName = 'Route to Gatepost',

    [ValidateLength(1, 64)]
    [string]$CleanUpRuleName = 'Back from Gatepost',

    [ValidatePattern('(?-i)^[!-9;-~]{1,76}\z|^@\w+@$')]
    [string]$SecretHeaderName = '@SecretHeaderName@',

    [ValidatePattern('(?-i)^[!-9;-~]{1,76}\z|^@\w+@$')]
    [string]$LoopHeaderName = '@LoopHeaderName@',

    [ValidateNotNullOrEmpty()]
    [string]$SecretFile = (Join-Path -Path $PSScriptRoot -ChildPath 'gatepost-secrets.json'),

    [string]$ExportFolder,

    [ValidateNotNullOrEmpty()]
    [string]$TenantId = '@TenantId@',

    [string]$UserPrincipalName,

    [string]$DelegatedOrganization,

    [string]$AppId,

    [string]$Organization,

    [string]$CertificateThumbprint,

    [string]$CertificateFilePath,

    [securestring]$CertificatePassword,

    [switch]$ManagedIdentity,

    [string]$ManagedIdentityAccountId,

    [ValidateSet('O365Default', 'O365GermanyCloud', 'O365China', 'O365USGovGCCHigh', 'O365USGovDoD')]
    [string]$ExchangeEnvironmentName = '@ExchangeEnvironmentName@'
)

Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'

#region Common
# The same in every script of this folder, so that each works alone; a test holds it so.
$script:Doing = 'starting'
$script:Denied = $false
$script:OwnConnection = ''
$script:DisconnectAll = $false
$script:Hidden = @()

# The value of a property; nothing where the object has none of this name.
function Get-GatepostProperty {
    param($Object, [string]$Name)
    if ($null -eq $Object) { return $null }
    $property = $Object.PSObject.Properties[$Name]
    if ($null -eq $property) { return $null }
    $property.Value
}

# Ends the script with a reason that is no fault of Exchange Online.
function Deny-GatepostRun {
    param([string]$Reason)
    $script:Denied = $true
    throw $Reason
}

# A text without the values of secret headers.
function Protect-GatepostText {
    param([string]$Text)
    foreach ($value in $script:Hidden) { if ($value) { $Text = $Text.Replace($value, '(secret)') } }
    $Text
}

# What Exchange Online answered stays in the list of errors, but for answers that repeat a secret.
function Clear-GatepostError {
    foreach ($entry in @($Error)) {
        $shown = [string]$entry
        if ((Protect-GatepostText -Text $shown) -cne $shown) { $Error.Remove($entry) }
    }
}

# The error that a script ends with: what it was doing, why that failed, and how to go on.
function Get-GatepostFailure {
    param($Record)
    $text = Protect-GatepostText -Text ([string]$Record.Exception.Message)
    $id = 'GatepostRefused'
    if (-not $script:Denied) {
        $id = 'GatepostFailed'
        $text = 'Failed while ' + $script:Doing + ': ' + $text.TrimEnd(' ', '.') + '. Run the script again: it goes on from what is there.'
    }
    Clear-GatepostError
    $exception = New-Object -TypeName System.InvalidOperationException -ArgumentList $text
    New-Object -TypeName System.Management.Automation.ErrorRecord -ArgumentList $exception, $id, ([System.Management.Automation.ErrorCategory]::InvalidOperation), $null
}

# Fails where a value was neither filled in by render nor given.
function Assert-GatepostValue {
    param([string]$Name, [string[]]$Value)
    $bad = @($Value | Where-Object { -not $_ -or $_ -match '^@\w+@$' })
    if (@($Value).Count -eq 0 -or $bad.Count -gt 0) {
        Deny-GatepostRun -Reason "$Name has no value: give -$Name, or let 'gatepost connector render' fill this script in."
    }
}

# A parameter that may be left out: nothing where the template was not filled in.
function Get-GatepostOptional {
    param([string]$Value)
    if ($Value -match '^@\w+@$') { return [string]::Empty }
    $Value
}

# One line of the result: for one thing in the tenant, what was done with it.
function Write-GatepostResult {
    param([string]$Type, [string]$Name, [string]$Action, [string[]]$Changes = @(), [string]$Message = '')
    [pscustomobject]@{ Type = $Type; Name = $Name; Action = $Action; Changes = @($Changes); Message = $Message }
}

# What became of a change that ShouldProcess held back.
function Get-GatepostHeld {
    param([string]$Would)
    if ($WhatIfPreference) { return $Would }
    'Skipped'
}

# What Connect-ExchangeOnline is called with.
function Get-GatepostSignIn {
    $signIn = @{ ShowBanner = $false }
    $environment = Get-GatepostOptional -Value $ExchangeEnvironmentName
    if ($environment) { $signIn['ExchangeEnvironmentName'] = $environment }
    if ($AppId -or $ManagedIdentity) {
        if (-not $Organization) { Deny-GatepostRun -Reason 'Signing in as an application needs -Organization: the name of the tenant that ends in .onmicrosoft.com.' }
        if ($UserPrincipalName -or $DelegatedOrganization) { Deny-GatepostRun -Reason 'Give either a user (-UserPrincipalName, -DelegatedOrganization) or an application (-AppId or -ManagedIdentity), not both.' }
        $signIn['Organization'] = $Organization
    }
    if ($AppId) {
        if ($ManagedIdentity) { Deny-GatepostRun -Reason 'Give either -AppId or -ManagedIdentity, not both.' }
        if ([bool]$CertificateThumbprint -eq [bool]$CertificateFilePath) { Deny-GatepostRun -Reason '-AppId goes with one of -CertificateThumbprint (Windows) and -CertificateFilePath.' }
        $signIn['AppId'] = $AppId
        if ($CertificateThumbprint) { $signIn['CertificateThumbprint'] = $CertificateThumbprint }
        if ($CertificateFilePath) {
            $signIn['CertificateFilePath'] = $PSCmdlet.GetUnresolvedProviderPathFromPSPath($CertificateFilePath)
            if ($null -ne $CertificatePassword) { $signIn['CertificatePassword'] = $CertificatePassword }
        }
    } elseif ($ManagedIdentity) {
        $signIn['ManagedIdentity'] = $true
        if ($ManagedIdentityAccountId) { $signIn['ManagedIdentityAccountId'] = $ManagedIdentityAccountId }
    } else {
        if ($CertificateThumbprint -or $CertificateFilePath) { Deny-GatepostRun -Reason 'A certificate goes with -AppId and -Organization.' }
        if ($Organization) { Deny-GatepostRun -Reason '-Organization goes with -AppId or -ManagedIdentity; a partner signs in with -DelegatedOrganization.' }
        if ($UserPrincipalName) { $signIn['UserPrincipalName'] = $UserPrincipalName }
        if ($DelegatedOrganization) { $signIn['DelegatedOrganization'] = $DelegatedOrganization }
    }
    $signIn
}

# The sessions to Exchange Online in this window whose cmdlets have no prefix and whose token is good.
function Get-GatepostSession {
    @(Get-ConnectionInformation -ErrorAction Stop | Where-Object {
        (Get-GatepostProperty -Object $_ -Name 'State') -eq 'Connected' -and (Get-GatepostProperty -Object $_ -Name 'TokenStatus') -eq 'Active' -and
        -not (Get-GatepostProperty -Object $_ -Name 'IsEopSession') -and -not (Get-GatepostProperty -Object $_ -Name 'ModulePrefix')
    })
}

# A session of the right tenant: one that is open, else one of our own. Nothing of another tenant is read.
function Connect-GatepostTenant {
    Assert-GatepostValue -Name 'TenantId' -Value $TenantId
    $signIn = Get-GatepostSignIn
    $script:Doing = 'loading the module ExchangeOnlineManagement'
    $minimum = [version]'3.2.0'
    $loaded = @(Get-Module -Name 'ExchangeOnlineManagement')
    if ($loaded.Count -eq 0) {
        $there = @(Get-Module -Name 'ExchangeOnlineManagement' -ListAvailable | Where-Object { $_.Version -ge $minimum })
        if ($there.Count -eq 0) { Deny-GatepostRun -Reason "The module ExchangeOnlineManagement $minimum or later is not on this machine. Install it: Install-Module -Name ExchangeOnlineManagement -Scope CurrentUser" }
        Import-Module -Name 'ExchangeOnlineManagement' -MinimumVersion $minimum -ErrorAction Stop
    } elseif ($loaded[0].Version -lt $minimum) {
        Deny-GatepostRun -Reason "ExchangeOnlineManagement $($loaded[0].Version) is loaded, and $minimum or later is needed. Update-Module -Name ExchangeOnlineManagement, then a new window."
    }
    $script:Doing = 'looking for an open session'
    $open = @(Get-GatepostSession)
    foreach ($one in $open) {
        $other = [string](Get-GatepostProperty -Object $one -Name 'TenantID')
        if ($other -ne $TenantId) { Deny-GatepostRun -Reason "This window is connected to tenant $other, and the script is for tenant $TenantId. Nothing was read or changed. Disconnect-ExchangeOnline, or use another window." }
    }
    if ($open.Count -gt 0) {
        Write-Verbose "Using the open session of tenant $TenantId as $(Get-GatepostProperty -Object $open[0] -Name 'UserPrincipalName')$(Get-GatepostProperty -Object $open[0] -Name 'AppId')."
        return
    }
    $script:Doing = "signing in to Exchange Online for tenant $TenantId"
    $before = @(Get-ConnectionInformation -ErrorAction Stop | ForEach-Object { [string](Get-GatepostProperty -Object $_ -Name 'ConnectionId') })
    $script:DisconnectAll = ($before.Count -eq 0)
    Connect-ExchangeOnline @signIn -ErrorAction Stop
    $own = @(Get-GatepostSession | Where-Object { $before -notcontains [string](Get-GatepostProperty -Object $_ -Name 'ConnectionId') })
    if ($own.Count -eq 0) { Deny-GatepostRun -Reason 'Connect-ExchangeOnline came back without a session.' }
    $script:OwnConnection = [string](Get-GatepostProperty -Object $own[0] -Name 'ConnectionId')
    $reached = [string](Get-GatepostProperty -Object $own[0] -Name 'TenantID')
    if ($reached -ne $TenantId) { Deny-GatepostRun -Reason "The sign-in led to tenant $reached, and the script is for tenant $TenantId. Nothing was read or changed." }
    Write-Verbose "Signed in to tenant $TenantId, $(Get-GatepostProperty -Object $own[0] -Name 'Organization')$(Get-GatepostProperty -Object $own[0] -Name 'DelegatedOrganization')."
}

# Closes the session that this script opened, and no other.
function Disconnect-GatepostTenant {
    try {
        if ($script:OwnConnection) { Disconnect-ExchangeOnline -ConnectionId $script:OwnConnection -Confirm:$false -ErrorAction Stop }
        elseif ($script:DisconnectAll) { Disconnect-ExchangeOnline -Confirm:$false -ErrorAction Stop }
    } catch {
        Write-Warning "The session could not be closed: $(Protect-GatepostText -Text ([string]$_.Exception.Message))"
        Clear-GatepostError
    }
    $script:OwnConnection = ''
    $script:DisconnectAll = $false
}
#endregion Common

#region Secrets
# Values of the secret headers, out of the file that render wrote. Never printed.
function Read-GatepostSecret {
    $path = $PSCmdlet.GetUnresolvedProviderPathFromPSPath($SecretFile)
    $script:Doing = "reading the secrets file '$path'"
    if (-not (Test-Path -LiteralPath $path -PathType Leaf)) { Deny-GatepostRun -Reason "The secrets file '$path' is not there: 'gatepost connector render' writes it beside the scripts, or give -SecretFile." }
    $mode = Get-GatepostProperty -Object (Get-Item -LiteralPath $path -Force) -Name 'UnixFileMode'
    if ([System.Environment]::OSVersion.Platform -ne [System.PlatformID]::Win32NT -and [string]$mode -match 'Group|Other') { Write-Warning "'$path' may be read by others than its owner: chmod 600." }
    $text = ''
    try { $text = [System.IO.File]::ReadAllText($path) } catch { Deny-GatepostRun -Reason "The secrets file '$path' cannot be read: $($_.Exception.InnerException.Message) Whoever runs the scripts must own it (chown)." }
    $given = $null
    try { $given = $text | ConvertFrom-Json } catch { $given = $null }
    $texts = @{}
    foreach ($key in 'TenantId', 'SecretHeaderValue', 'LoopHeaderValue') {
        $texts[$key] = [string](Get-GatepostProperty -Object $given -Name $key)
        if (-not $texts[$key]) { Deny-GatepostRun -Reason "'$path' is no secrets file: it has no $key." }
    }
    $secretPrevious = @(Get-GatepostProperty -Object $given -Name 'SecretHeaderPrevious' | Where-Object { $_ } | ForEach-Object { [string]$_ })
    $loopPrevious = @(Get-GatepostProperty -Object $given -Name 'LoopHeaderPrevious' | Where-Object { $_ } | ForEach-Object { [string]$_ })
    $script:Hidden = @(@($texts['SecretHeaderValue'], $texts['LoopHeaderValue']) + $secretPrevious + $loopPrevious | Sort-Object -Property Length -Descending)
    if ($texts['TenantId'] -ne $TenantId) { Deny-GatepostRun -Reason "'$path' is for tenant $($texts['TenantId']), and the script is for tenant $TenantId. Nothing was read or changed." }
    foreach ($word in @($texts['LoopHeaderValue']) + $loopPrevious) { if ($word.Length -gt 128) { Deny-GatepostRun -Reason "A loop header value in '$path' has $($word.Length) characters; a word of a mail flow rule has at most 128." } }
    @{
        HeaderValue = $texts['SecretHeaderValue']; HeaderKnown = @(@($texts['SecretHeaderValue']) + $secretPrevious)
        LoopValue = $texts['LoopHeaderValue']; LoopKnown = @(@($texts['LoopHeaderValue']) + $loopPrevious | Sort-Object -Unique -CaseSensitive)
    }
}
#endregion Secrets

#region Ownership
# With this the comment of every object of ours begins.
$script:Mark = 'Managed by Gatepost (schema 1)'

# Whether the hybrid wizard made this connector: such a one is never touched.
function Test-GatepostHybrid {
    param($Object)
    $name = [string](Get-GatepostProperty -Object $Object -Name 'Name')
    [string](Get-GatepostProperty -Object $Object -Name 'ConnectorSource') -eq 'HybridWizard' -or $name -like 'Inbound from *' -or $name -like 'Outbound to *'
}

# Whether the object carries our mark.
function Test-GatepostMark {
    param($Object)
    $comment = [string](Get-GatepostProperty -Object $Object -Name 'Comment') + [string](Get-GatepostProperty -Object $Object -Name 'Comments')
    $comment.StartsWith($script:Mark, [System.StringComparison]::Ordinal)
}
#endregion Ownership

#region Find
# The object of this name, nothing where there is none. Refuses one that is not ours.
function Find-GatepostObject {
    param([object[]]$List, [string]$Name, [string]$Type, [bool]$Adopt = $false)
    $found = @($List | Where-Object { $null -ne $_ -and [string]$_.Name -eq $Name })
    if ($found.Count -eq 0) { return $null }
    if ($Type -match 'connector' -and (Test-GatepostHybrid -Object $found[0])) { Deny-GatepostRun -Reason "The $Type '$Name' belongs to the hybrid set-up and is never touched: choose another name." }
    if (-not $Adopt -and -not (Test-GatepostMark -Object $found[0])) {
        Deny-GatepostRun -Reason "The $Type '$Name' is not Gatepost's: its comment does not begin with '$($script:Mark)'. Nothing was changed. Where it is somebody else's, choose another name; where it is Gatepost's and somebody has changed the comment, Install-GatepostConnector.ps1 -Force takes it back."
    }
    $found[0]
}
#endregion Find

#region State
# Lets only the owner read a file or folder.
function Protect-GatepostPath {
    param([string]$Path)
    $item = Get-Item -LiteralPath $Path -Force
    if ([System.Environment]::OSVersion.Platform -ne [System.PlatformID]::Win32NT) {
        if ($null -eq $item.PSObject.Properties['UnixFileMode']) { Deny-GatepostRun -Reason "This PowerShell cannot restrict '$Path' to its owner: use 7.4 or later." }
        $mode = 'UserRead, UserWrite'
        if ($item.PSIsContainer) { $mode = 'UserRead, UserWrite, UserExecute' }
        $item.UnixFileMode = $mode
        return
    }
    $owner = [System.Security.Principal.WindowsIdentity]::GetCurrent().User
    if ($item.PSIsContainer) {
        $rights = New-Object -TypeName System.Security.AccessControl.DirectorySecurity
        $rule = New-Object -TypeName System.Security.AccessControl.FileSystemAccessRule -ArgumentList $owner, 'FullControl', 'ContainerInherit, ObjectInherit', 'None', 'Allow'
    } else {
        $rights = New-Object -TypeName System.Security.AccessControl.FileSecurity
        $rule = New-Object -TypeName System.Security.AccessControl.FileSystemAccessRule -ArgumentList $owner, 'FullControl', 'Allow'
    }
    $rights.SetAccessRuleProtection($true, $false)
    $rights.AddAccessRule($rule)
    if ($null -ne $item.PSObject.Methods['SetAccessControl']) { $item.SetAccessControl($rights) } else { [System.IO.FileSystemAclExtensions]::SetAccessControl($item, $rights) }
}

# A new file, restricted before anything stands in it.
function Write-GatepostFile {
    param([string]$Path, [byte[]]$Content)
    $script:Doing = "writing '$Path'"
    $stream = New-Object -TypeName System.IO.FileStream -ArgumentList $Path, ([System.IO.FileMode]::CreateNew)
    $stream.Dispose()
    Protect-GatepostPath -Path $Path
    [System.IO.File]::WriteAllBytes($Path, $Content)
}

# Reads the state of the tenant and writes it into a new folder; gives back the files. All is read before anything is written.
function Save-GatepostState {
    param([string]$Folder)
    $state = [ordered]@{}
    # From when and of whom: a copy of the files has another time.
    $state['Export'] = @([pscustomobject]@{ Time = [datetime]::UtcNow.ToString('yyyy-MM-ddTHH:mm:ssZ', [System.Globalization.CultureInfo]::InvariantCulture); TenantId = $TenantId })
    $script:Doing = 'reading the inbound connectors'
    $state['InboundConnector'] = @(Get-InboundConnector -ErrorAction Stop)
    $script:Doing = 'reading the outbound connectors'
    $state['OutboundConnector'] = @(Get-OutboundConnector -IncludeTestModeConnectors $true -ErrorAction Stop)
    $script:Doing = 'reading the transport rules'
    $state['TransportRule'] = @(Get-TransportRule -ErrorAction Stop)
    $script:Doing = 'reading the ARC configuration'
    $state['ArcConfig'] = @(Get-ArcConfig -ErrorAction Stop)
    $script:Doing = 'reading the accepted domains'
    $state['AcceptedDomain'] = @(Get-AcceptedDomain -ErrorAction Stop)
    $script:Doing = 'reading the organization configuration'
    $state['OrganizationConfig'] = @(Get-OrganizationConfig -ErrorAction Stop)
    $script:Doing = 'exporting the transport rule collection'
    $collection = @(Export-TransportRuleCollection -Confirm:$false -ErrorAction Stop)[0]
    $data = Get-GatepostProperty -Object $collection -Name 'FileData'
    if ($data -is [string]) { $data = [System.Convert]::FromBase64String($data) }

    $script:Doing = "making the folder '$Folder'"
    if (-not (Test-Path -LiteralPath $Folder -PathType Container)) {
        [void][System.IO.Directory]::CreateDirectory($Folder)
        Protect-GatepostPath -Path $Folder
    }
    foreach ($key in $state.Keys) {
        $path = [System.IO.Path]::Combine($Folder, "$key.json")
        if (Test-Path -LiteralPath $path) { Deny-GatepostRun -Reason "'$path' is already there: give another folder." }
    }
    $encoding = New-Object -TypeName System.Text.UTF8Encoding -ArgumentList $false
    foreach ($key in $state.Keys) {
        $path = [System.IO.Path]::Combine($Folder, "$key.json")
        $text = ConvertTo-Json -InputObject @($state[$key]) -Depth 6
        Write-GatepostFile -Path $path -Content $encoding.GetBytes($text + "`n")
        Write-GatepostResult -Type 'file' -Name $path -Action 'Created' -Message "$(@($state[$key]).Count) objects"
    }
    if ($null -ne $data) {
        $path = [System.IO.Path]::Combine($Folder, 'TransportRuleCollection.xml')
        Write-GatepostFile -Path $path -Content ([byte[]]$data)
        Write-GatepostResult -Type 'file' -Name $path -Action 'Created' -Message 'all rules, as Export-TransportRuleCollection gives them'
    }
}
#endregion State

#region Before
$script:StateSaved = $false

# Writes the state of the tenant into a folder before the first change of this run.
function Save-GatepostBefore {
    if ($script:StateSaved) { return }
    $was = $script:Doing
    $within = $PSScriptRoot
    if ($ExportFolder) { $within = $PSCmdlet.GetUnresolvedProviderPathFromPSPath($ExportFolder) }
    $time = [datetime]::UtcNow.ToString('yyyyMMdd-HHmmss-fff', [System.Globalization.CultureInfo]::InvariantCulture)
    $folder = [System.IO.Path]::Combine($within, "state-before-$time")
    $files = @(Save-GatepostState -Folder $folder)
    Write-Verbose "The state before the first change is in '$folder' ($($files.Count) files, for their owner alone: the rules hold the values of the secret headers)."
    $script:StateSaved = $true
    $script:Doing = $was
}
#endregion Before

# The words of a rule's list, as text.
function Get-GatepostWord {
    param($Rule, [string]$Name)
    @(Get-GatepostProperty -Object $Rule -Name $Name | Where-Object { $null -ne $_ -and '' -ne [string]$_ } | ForEach-Object { [string]$_ })
}

# Whether two word lists hold the same.
function Test-GatepostWord {
    param([string[]]$Left, [string[]]$Right)
    @($Left | Where-Object { $Right -cnotcontains $_ }).Count -eq 0 -and @($Right | Where-Object { $Left -cnotcontains $_ }).Count -eq 0
}

#region Turn
# What the comment of the clean-up rule remembers of a rotation.
$script:Turn = ' Rotation begun with loop value #([0-9a-f]{8})\.$'
#endregion Turn

# Tells a value from others, and no more of it.
function Get-GatepostDigit {
    param([string]$Value)
    $sum = [System.Security.Cryptography.SHA256]::Create().ComputeHash([System.Text.Encoding]::UTF8.GetBytes($Value))
    [System.BitConverter]::ToString($sum, 0, 4).Replace('-', '').ToLowerInvariant()
}

# The list that a stage leads to.
function Get-GatepostNextWord {
    param([string[]]$Now, [hashtable]$Secret, [string]$Rule)
    if ($Stage -eq 'NewOnly') { return @($Secret['LoopValue']) }
    $unknown = @($Now | Where-Object { $_ -and $Secret['LoopKnown'] -cnotcontains $_ })
    if ($unknown.Count -gt 0) { Write-Warning "The rule '$Rule' holds $($unknown.Count) value(s) that the secrets file does not have. They stay for now. -Stage NewOnly removes them, or, where a rotation is given up, Repair-GatepostConnector.ps1." }
    @($Secret['LoopKnown']) + $unknown
}

try {
    foreach ($pair in @(@('SecretHeaderName', $SecretHeaderName), @('LoopHeaderName', $LoopHeaderName), @('TenantId', $TenantId))) { Assert-GatepostValue -Name $pair[0] -Value $pair[1] }
    $secret = Read-GatepostSecret
    Connect-GatepostTenant
    $script:Doing = 'reading the transport rules'
    $rules = @(Get-TransportRule -ErrorAction Stop)
    $routing = Find-GatepostObject -List $rules -Name $RoutingRuleName -Type 'transport rule'
    $cleanUp = Find-GatepostObject -List $rules -Name $CleanUpRuleName -Type 'transport rule'
    if ($null -eq $routing -or $null -eq $cleanUp) { Deny-GatepostRun -Reason "The rules '$RoutingRuleName' and '$CleanUpRuleName' must both be there: Install-GatepostConnector.ps1 makes what is missing. Nothing was changed." }
    $back = @(Get-GatepostWord -Rule $cleanUp -Name 'HeaderContainsWords')
    $out = @(Get-GatepostWord -Rule $routing -Name 'ExceptIfHeaderContainsWords')
    # The values that are in force now are no less secret than the new ones.
    $sent = [string](Get-GatepostProperty -Object $routing -Name 'SetHeaderValue')
    $script:Hidden = @(@($script:Hidden) + $back + $out + $sent | Where-Object { $_ } | Sort-Object -Property Length -Descending)
    if ($Stage -eq 'NewOnly' -and ($back -cnotcontains $secret['LoopValue'] -or $out -cnotcontains $secret['LoopValue'] -or $sent -cne $secret['HeaderValue'])) {
        Deny-GatepostRun -Reason 'The rules do not hold the new values yet: run -Stage Both first, and go through the steps between (see the help). Nothing was changed.'
    }
    $type = 'transport rule'
    $comment = [string](Get-GatepostProperty -Object $cleanUp -Name 'Comments')
    $plain = $comment -replace $script:Turn, ''
    $isBegun = $comment -match $script:Turn -and $Matches[1] -eq (Get-GatepostDigit -Value $secret['LoopValue'])
    # With one value in both lists, and this one, there is none to lose: the rotation was given up.
    $others = @($back + $out | Where-Object { $_ -cne $secret['LoopValue'] })
    if ($Stage -eq 'NewOnly' -and $others.Count -gt 0 -and $isBegun) {
        Deny-GatepostRun -Reason 'The secrets file is older than the rotation has come: its loop value is the one that was in use before, and the rules would lose the new one. Go through step 3, render again, and bring gatepost-secrets.json here (see the help); where the rotation is given up, Repair-GatepostConnector.ps1 takes the new one out. Nothing was changed.'
    }
    if ($Stage -eq 'Both') {
        $adds = @($secret['LoopKnown'] | Where-Object { $back -cnotcontains $_ })
        # A value that is added and not in use yet: the one in use is to go.
        if ($adds.Count -gt 0 -and $adds -cnotcontains $secret['LoopValue']) { $comment = "$plain Rotation begun with loop value #$(Get-GatepostDigit -Value $secret['LoopValue'])." }
        if ($secret['LoopKnown'].Count -lt 2 -and $secret['HeaderKnown'].Count -lt 2) { Write-Warning 'The secrets file has no previous value: nothing is being rotated, or it is from before step 1. Render again, and bring gatepost-secrets.json here (see the help).' }
    } else { $comment = $plain }

    # The clean-up rule comes first: what comes back with a new value must be known to it before it is known to the routing rule.
    $next = @(Get-GatepostNextWord -Now $back -Secret $secret -Rule $CleanUpRuleName)
    $header = [string](Get-GatepostProperty -Object $cleanUp -Name 'HeaderContainsMessageHeader')
    $remembers = $comment -cne [string](Get-GatepostProperty -Object $cleanUp -Name 'Comments')
    if ((Test-GatepostWord -Left $back -Right $next) -and $header -eq $LoopHeaderName -and -not $remembers) {
        Write-GatepostResult -Type $type -Name $CleanUpRuleName -Action 'Unchanged' -Message "$($next.Count) value(s)"
    } else {
        $changes = @("HeaderContainsWords: $($back.Count) secret value(s) -> $($next.Count), of which $(@($next | Where-Object { $back -ccontains $_ }).Count) stay")
        if ($remembers) { $changes += "Comments: $(if ($comment -notmatch $script:Turn) { 'no longer ' })that a rotation is under way" }
        $action = Get-GatepostHeld -Would 'WouldUpdate'
        if ($PSCmdlet.ShouldProcess("$type '$CleanUpRuleName' of tenant $TenantId", "Stage $Stage`: $($changes -join '; ')")) {
            $script:Doing = "setting the word list of the rule '$CleanUpRuleName'"
            Save-GatepostBefore
            Set-TransportRule -Identity $CleanUpRuleName -HeaderContainsMessageHeader $LoopHeaderName -HeaderContainsWords $next -Comments $comment -Confirm:$false -ErrorAction Stop
            $action = 'Updated'
        }
        Write-GatepostResult -Type $type -Name $CleanUpRuleName -Action $action -Changes $changes
    }

    $next = @(Get-GatepostNextWord -Now $out -Secret $secret -Rule $RoutingRuleName)
    $set = @{ Identity = $RoutingRuleName }
    $changes = @()
    if (-not (Test-GatepostWord -Left $out -Right $next) -or [string](Get-GatepostProperty -Object $routing -Name 'ExceptIfHeaderContainsMessageHeader') -ne $LoopHeaderName) {
        $set['ExceptIfHeaderContainsMessageHeader'] = $LoopHeaderName
        $set['ExceptIfHeaderContainsWords'] = $next
        $changes += "ExceptIfHeaderContainsWords: $($out.Count) secret value(s) -> $($next.Count), of which $(@($next | Where-Object { $out -ccontains $_ }).Count) stay"
    }
    if ($sent -cne $secret['HeaderValue'] -or [string](Get-GatepostProperty -Object $routing -Name 'SetHeaderName') -ne $SecretHeaderName) {
        $set['SetHeaderName'] = $SecretHeaderName
        $set['SetHeaderValue'] = $secret['HeaderValue']
        $changes += 'SetHeaderValue: another secret value -> the one of the secrets file'
    }
    $message = 'takes effect within minutes; wait for it before Gatepost writes the new loop value (step 3 of the help)'
    # Begun before with this value in use, and the secret turned back: step 2 would have changed the words as well.
    if ($isBegun -and -not $set.ContainsKey('ExceptIfHeaderContainsWords') -and $secret['LoopKnown'].Count -gt 1) { $message = 'takes effect within minutes; wait for it, and until nothing from before is queued. The rotation is given up: then drop both previous from gatepost.toml, reload and render, and Repair-GatepostConnector.ps1 takes the new values out' }
    elseif ($secret['LoopKnown'].Count -lt 2) { $message = 'takes effect within minutes' }
    if ($Stage -eq 'NewOnly') { $message = 'now drop previous from gatepost.toml, reload and render' }
    if ($changes.Count -eq 0) {
        Write-GatepostResult -Type $type -Name $RoutingRuleName -Action 'Unchanged' -Message "$($next.Count) value(s)"
    } else {
        $action = Get-GatepostHeld -Would 'WouldUpdate'
        if ($PSCmdlet.ShouldProcess("$type '$RoutingRuleName' of tenant $TenantId", "Stage $Stage`: $($changes -join '; ')")) {
            $script:Doing = "setting the secret values of the rule '$RoutingRuleName'"
            Save-GatepostBefore
            Set-TransportRule @set -Confirm:$false -ErrorAction Stop
            $action = 'Updated'
        }
        Write-GatepostResult -Type $type -Name $RoutingRuleName -Action $action -Changes $changes -Message $message
    }
} catch {
    $PSCmdlet.ThrowTerminatingError((Get-GatepostFailure -Record $_))
} finally {
    Disconnect-GatepostTenant
}
