#Requires -Version 5.1

<#
.SYNOPSIS
    Takes Gatepost's connectors and mail flow rules out of a tenant, in the order in which no mail is lost.

.DESCRIPTION
    The routing rule is disabled first; then the script waits until no mail of the tenant is pending in the message trace; then the routing
    rule, the clean-up rule, the outbound and the inbound connector go. While mail is pending after -WaitMinutes, the connectors stay and
    the script says so: run it again later. -WaitMinutes 0 does not look.

    Before it: Set-GatepostRollout.ps1 -Stage Stop an hour earlier, since rules and trace lag behind by minutes. 'gatepost queue list' must
    show no mail for the tenant, and devices and applications that send through Gatepost need the inbound connector and the clean-up rule
    for as long as they do: -KeepInboundConnector leaves both.

    Objects that are not Gatepost's stay, also under our names. What is absent already is told as Unchanged. Before the first change the
    state of the tenant is written to a folder, for its owner alone. Each object is asked about; -Confirm:$false asks nothing.

.PARAMETER InboundConnectorName
    Name of the inbound connector.

.PARAMETER OutboundConnectorName
    Name of the outbound connector.

.PARAMETER RoutingRuleName
    Name of the mail flow rule that sends mail to Gatepost.

.PARAMETER CleanUpRuleName
    Name of the mail flow rule that takes the loop header off mail that has come back.

.PARAMETER ArcSealer
    The d= domain that Set-GatepostArcSealer.ps1 added: taken out of the list of trusted sealers as well.

.PARAMETER WaitMinutes
    How long to wait for pending mail. 0: not at all.

.PARAMETER PollSeconds
    How long to wait between two looks into the trace.

.PARAMETER KeepInboundConnector
    Leaves the inbound connector and the clean-up rule, for devices and applications that go on sending through Gatepost.

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
    .\Remove-GatepostConnector.ps1 -WhatIf

    Shows everything that would go, and what stays.

.EXAMPLE
    .\Remove-GatepostConnector.ps1 -UserPrincipalName admin@contoso.com

    Asks about each object.

.EXAMPLE
    .\Remove-GatepostConnector.ps1 -Confirm:$false -AppId 00000000-0000-0000-0000-000000000000 -Organization contoso.onmicrosoft.com -CertificateThumbprint $thumbprint

    As an application, without a person.

.EXAMPLE
    foreach ($customer in 'contoso', 'fabrikam') { & ".\$customer\Remove-GatepostConnector.ps1" -WhatIf -AppId $app -Organization "$customer.onmicrosoft.com" -CertificateThumbprint $thumbprint }

    One tenant after another, each with the folder that was rendered for it. A session is opened and closed for each; a folder of another tenant is refused.

.OUTPUTS
    One object for each thing looked at: Type, Name, Action, Changes, Message. No value of a secret header stands in it.

.NOTES
    Exchange Administrator, or Organization Management. An application needs Exchange.ManageAsApp and the role Exchange Administrator.
    Waiting reads the message trace: the role Message Tracking.
#>
[CmdletBinding(SupportsShouldProcess = $true, ConfirmImpact = 'High', PositionalBinding = $false)]
[OutputType([pscustomobject])]
param(
    [ValidateLength(1, 64)]
    [string]$InboundConnectorName = 'From Gatepost',

    [ValidateLength(1, 64)]
    [string]$OutboundConnectorName = 'To Gatepost',

    [ValidateLength(1, 64)]
    [string]$RoutingRuleName = 'Route to Gatepost',

    [ValidateLength(1, 64)]
    [string]$CleanUpRuleName = 'Back from Gatepost',

    [ValidateNotNullOrEmpty()]
    [string[]]$ArcSealer,

    [ValidateRange(0, 1440)]
    [int]$WaitMinutes = 30,

    [ValidateRange(1, 600)]
    [int]$PollSeconds = 30,

    [switch]$KeepInboundConnector,

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

# Mail of the tenant's own senders that Exchange still holds, by the message trace of the last two days.
function Get-GatepostPending {
    param([string[]]$Domains)
    $script:Doing = 'reading the message trace'
    $now = [datetime]::UtcNow
    $rows = @(Get-MessageTraceV2 -Status 'Pending', 'GettingStatus' -StartDate $now.AddDays(-2) -EndDate $now.AddMinutes(1) -ResultSize 5000 -WarningAction SilentlyContinue -ErrorAction Stop)
    @($rows | Where-Object { $Domains -contains ([string]$_.SenderAddress).Split('@')[-1] }).Count
}

# Waits until no mail is pending. False where the time is over before.
function Wait-GatepostPending {
    $script:Doing = 'reading the accepted domains'
    $domains = @(Get-AcceptedDomain -ErrorAction Stop | ForEach-Object { [string]$_.DomainName })
    $until = [datetime]::UtcNow.AddMinutes($WaitMinutes)
    while ($true) {
        $pending = Get-GatepostPending -Domains $domains
        if ($pending -eq 0) { return $true }
        if ([datetime]::UtcNow.AddSeconds($PollSeconds) -gt $until) {
            Write-Warning "$pending messages of this tenant are still pending."
            return $false
        }
        Write-Verbose "$pending messages are pending; looking again in $PollSeconds seconds."
        Start-Sleep -Seconds $PollSeconds
    }
}

# An object under one of our names: ours, absent or somebody else's. Writes the result for the last two.
function Get-GatepostOwn {
    param([object[]]$List, [string]$Name, [string]$Type)
    $found = @($List | Where-Object { $null -ne $_ -and [string]$_.Name -eq $Name })
    if ($found.Count -eq 0) { return @{ Object = $null; Result = (Write-GatepostResult -Type $Type -Name $Name -Action 'Unchanged' -Message 'already absent') } }
    if (-not (Test-GatepostMark -Object $found[0]) -or ($Type -match 'connector' -and (Test-GatepostHybrid -Object $found[0]))) {
        Write-Warning "The $Type '$Name' is not Gatepost's and stays."
        return @{ Object = $null; Result = (Write-GatepostResult -Type $Type -Name $Name -Action 'Unchanged' -Message 'not Gatepost''s: left alone') }
    }
    @{ Object = $found[0]; Result = $null }
}

try {
    Connect-GatepostTenant
    $script:Doing = 'reading the inbound connectors'
    $inboundList = @(Get-InboundConnector -ErrorAction Stop)
    $script:Doing = 'reading the outbound connectors'
    $outboundList = @(Get-OutboundConnector -IncludeTestModeConnectors $true -ErrorAction Stop)
    $script:Doing = 'reading the transport rules'
    $rules = @(Get-TransportRule -ErrorAction Stop)
    $inbound = Get-GatepostOwn -List $inboundList -Name $InboundConnectorName -Type 'inbound connector'
    $outbound = Get-GatepostOwn -List $outboundList -Name $OutboundConnectorName -Type 'outbound connector'
    $routing = Get-GatepostOwn -List $rules -Name $RoutingRuleName -Type 'transport rule'
    $cleanUp = Get-GatepostOwn -List $rules -Name $CleanUpRuleName -Type 'transport rule'
    if ($null -ne $outbound['Object']) {
        $names = @($OutboundConnectorName, [string](Get-GatepostProperty -Object $outbound['Object'] -Name 'Guid'), [string](Get-GatepostProperty -Object $outbound['Object'] -Name 'DistinguishedName') | Where-Object { $_ })
        $users = @($rules | Where-Object { $names -contains [string](Get-GatepostProperty -Object $_ -Name 'RouteMessageOutboundConnector') -and ($null -eq $routing['Object'] -or [string]$_.Name -ne $RoutingRuleName) } | ForEach-Object { "'$($_.Name)'" })
        if ($users.Count -gt 0) { Deny-GatepostRun -Reason "Rules that are not ours send mail to '$OutboundConnectorName': $($users -join ', '). Change or remove them first. Nothing was changed." }
    }

    # First no more mail goes out, then the script waits, then the objects go.
    $stopped = $true
    $rule = $routing['Object']
    if ($null -ne $rule -and [string](Get-GatepostProperty -Object $rule -Name 'State') -eq 'Enabled') {
        $script:Doing = 'asking for consent (-Confirm:$false where nobody can be asked)'
        if ($PSCmdlet.ShouldProcess("transport rule '$RoutingRuleName' of tenant $TenantId", 'Disable')) {
            $script:Doing = "disabling the rule '$RoutingRuleName'"
            Save-GatepostBefore
            Disable-TransportRule -Identity $RoutingRuleName -Confirm:$false -ErrorAction Stop
            Write-GatepostResult -Type 'transport rule' -Name $RoutingRuleName -Action 'Updated' -Changes @("State: 'Enabled' -> 'Disabled'")
        } else { $stopped = [bool]$WhatIfPreference }
    }
    if (-not $stopped) { Deny-GatepostRun -Reason "The rule '$RoutingRuleName' was not disabled, so everything stays." }
    $gone = $null -eq $inbound['Object'] -and $null -eq $outbound['Object'] -and $null -eq $rule
    if ($gone) { Write-Verbose 'Nothing that carries mail is left, so the message trace is not read.' }
    elseif ($WhatIfPreference) { Write-Verbose 'Would wait until no mail is pending.' }
    elseif ($WaitMinutes -eq 0) { Write-Warning 'The message trace was not read: mail that is still pending for Gatepost will fail.' }
    elseif (-not (Wait-GatepostPending)) {
        Deny-GatepostRun -Reason "Mail is still pending after $WaitMinutes minutes. The routing rule is disabled, everything else stays. Run the script again later, or with -WaitMinutes 0 if the pending mail has nothing to do with Gatepost (Get-MessageTraceV2 -Status Pending)."
    }

    if ($null -ne $routing['Result']) { $routing['Result'] }
    if ($null -ne $rule) {
        $action = Get-GatepostHeld -Would 'WouldRemove'
        $script:Doing = 'asking for consent (-Confirm:$false where nobody can be asked)'
        if ($PSCmdlet.ShouldProcess("transport rule '$RoutingRuleName' of tenant $TenantId", 'Remove')) {
            $script:Doing = "removing the rule '$RoutingRuleName'"
            Save-GatepostBefore
            Remove-TransportRule -Identity $RoutingRuleName -Confirm:$false -ErrorAction Stop
            $action = 'Removed'
        }
        Write-GatepostResult -Type 'transport rule' -Name $RoutingRuleName -Action $action
    }
    if ($null -ne $cleanUp['Result']) { $cleanUp['Result'] }
    if ($null -ne $cleanUp['Object']) {
        if ($KeepInboundConnector) {
            Write-GatepostResult -Type 'transport rule' -Name $CleanUpRuleName -Action 'Unchanged' -Message 'kept: it takes the loop header off mail of devices and applications'
        } else {
            $action = Get-GatepostHeld -Would 'WouldRemove'
            $script:Doing = 'asking for consent (-Confirm:$false where nobody can be asked)'
            if ($PSCmdlet.ShouldProcess("transport rule '$CleanUpRuleName' of tenant $TenantId", 'Remove')) {
                $script:Doing = "removing the rule '$CleanUpRuleName'"
                Save-GatepostBefore
                Remove-TransportRule -Identity $CleanUpRuleName -Confirm:$false -ErrorAction Stop
                $action = 'Removed'
            }
            Write-GatepostResult -Type 'transport rule' -Name $CleanUpRuleName -Action $action

        }
    }
    if ($null -ne $outbound['Result']) { $outbound['Result'] }
    if ($null -ne $outbound['Object']) {
        $action = Get-GatepostHeld -Would 'WouldRemove'
        $script:Doing = 'asking for consent (-Confirm:$false where nobody can be asked)'
        if ($PSCmdlet.ShouldProcess("outbound connector '$OutboundConnectorName' of tenant $TenantId", 'Remove')) {
            $script:Doing = "removing the outbound connector '$OutboundConnectorName'"
            Save-GatepostBefore
            Remove-OutboundConnector -Identity $OutboundConnectorName -Confirm:$false -ErrorAction Stop
            $action = 'Removed'
        }
        Write-GatepostResult -Type 'outbound connector' -Name $OutboundConnectorName -Action $action
    }
    if ($null -ne $inbound['Result']) { $inbound['Result'] }
    if ($null -ne $inbound['Object']) {
        if ($KeepInboundConnector) {
            Write-GatepostResult -Type 'inbound connector' -Name $InboundConnectorName -Action 'Unchanged' -Message 'kept for devices and applications that send through Gatepost'
        } else {
            $action = Get-GatepostHeld -Would 'WouldRemove'
            $script:Doing = 'asking for consent (-Confirm:$false where nobody can be asked)'
            if ($PSCmdlet.ShouldProcess("inbound connector '$InboundConnectorName' of tenant $TenantId", 'Remove')) {
                $script:Doing = "removing the inbound connector '$InboundConnectorName'"
                Save-GatepostBefore
                Remove-InboundConnector -Identity $InboundConnectorName -Confirm:$false -ErrorAction Stop
                $action = 'Removed'
            }
            Write-GatepostResult -Type 'inbound connector' -Name $InboundConnectorName -Action $action
        }
    }
    if ($ArcSealer) {
        $script:Doing = 'reading the ARC configuration'
        $configuration = @(Get-ArcConfig -ErrorAction Stop)
        $now = @()
        if ($configuration.Count -gt 0) { $now = @(Get-GatepostProperty -Object $configuration[0] -Name 'ArcTrustedSealers' | ForEach-Object { ([string]$_).Split(',') } | ForEach-Object { $_.Trim() } | Where-Object { $_ }) }
        $next = @($now | Where-Object { $ArcSealer -notcontains $_ })
        if ($next.Count -eq $now.Count) {
            Write-GatepostResult -Type 'ARC configuration' -Name 'Default' -Action 'Unchanged' -Message 'already absent'
        } else {
            $changes = @("ArcTrustedSealers: '$($now -join ', ')' -> '$($next -join ', ')'")
            $action = Get-GatepostHeld -Would 'WouldUpdate'
            if ($next.Count -eq 0) { $next = @(' ') }
            $script:Doing = 'asking for consent (-Confirm:$false where nobody can be asked)'
            if ($PSCmdlet.ShouldProcess("ARC trusted sealers of tenant $TenantId", $changes[0])) {
                $script:Doing = 'writing the list of ARC trusted sealers'
                Save-GatepostBefore
                Set-ArcConfig -Identity 'Default' -ArcTrustedSealers $next -Confirm:$false -ErrorAction Stop
                $action = 'Updated'
            }
            Write-GatepostResult -Type 'ARC configuration' -Name 'Default' -Action $action -Changes $changes
        }
    }
} catch {
    $PSCmdlet.ThrowTerminatingError((Get-GatepostFailure -Record $_))
} finally {
    Disconnect-GatepostTenant
}
