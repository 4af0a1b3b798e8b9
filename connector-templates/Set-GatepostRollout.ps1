#Requires -Version 5.1

<#
.SYNOPSIS
    Decides whose mail goes through Gatepost: nobody's, that of a pilot group, or everyone's.

.DESCRIPTION
    Stages, in their order:

    Audit     the routing rule is enabled and only writes into the message trace what it would do
    Pilot     it sends the mail of the pilot group through Gatepost
    Everyone  it sends everyone's mail
    Stop      it is disabled; connectors, clean-up rule and everything else stay, and mail that is with Gatepost still comes back

    Stop is the emergency brake and needs nothing but a session: Disable-TransportRule -Identity 'Route to Gatepost' does the same by hand.
    It also stops a rule of this name whose comment somebody has changed, where that leads to our outbound connector or sets our secret header,
    and names the lines that stop rules of other names which do so.
    The other stages refuse to begin while an object is missing, foreign, switched off, ended or not begun, while a rule keeps mail back or
    loses it, while the routing rule leaves out all that it takes, while the clean-up rule does not take all mail that comes back, while a rule before ours takes the loop header off, or while the
    two rules have no loop value in common. Which values are right, and where the connector leads, is not looked at here:
    Repair-GatepostConnector.ps1 -WhatIf and 'gatepost connector diff' tell.

    Pilot and Everyone are refused while Exchange's own test mail has not come through the outbound connector (Confirm-GatepostConnector.ps1
    sees to that). A step past the stage between is warned of, as far as the rule shows which stage it comes from.

    A change of a rule takes effect within minutes, not at once.

    Before a change the state of the tenant is written to a folder beside the script (or below -ExportFolder), for its owner alone. Stop
    waits for no export: it changes nothing but the state of the rule, and its answer names what that was.

.PARAMETER Stage
    Audit, Pilot, Everyone or Stop: see above.

.PARAMETER InboundConnectorName
    Name of the inbound connector.

.PARAMETER OutboundConnectorName
    Name of the outbound connector.

.PARAMETER RoutingRuleName
    Name of the mail flow rule that sends mail to Gatepost.

.PARAMETER CleanUpRuleName
    Name of the mail flow rule that takes the loop header off mail that has come back.

.PARAMETER SecretHeaderName
    Header that the routing rule sets: secret_header of gatepost.toml. Stop knows the rule by it.

.PARAMETER LoopHeaderName
    Header that marks mail which was with Gatepost: loop_header of gatepost.toml.

.PARAMETER PilotGroup
    Address of the group whose members take part in the pilot.

.PARAMETER Force
    Sends mail of users by a connector that was never validated.

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
    .\Set-GatepostRollout.ps1 -Stage Audit -WhatIf

    Shows what the first stage would change.

.EXAMPLE
    .\Set-GatepostRollout.ps1 -Stage Pilot -PilotGroup mail-pilot@contoso.com -UserPrincipalName admin@contoso.com

    Sends the mail of this group through Gatepost.

.EXAMPLE
    .\Set-GatepostRollout.ps1 -Stage Stop -Confirm:$false

    Sends no mail to Gatepost any more, without a question.

.EXAMPLE
    .\Set-GatepostRollout.ps1 -Stage Everyone -AppId 00000000-0000-0000-0000-000000000000 -Organization contoso.onmicrosoft.com -CertificateThumbprint $thumbprint

    As an application, without a person.

.EXAMPLE
    foreach ($customer in 'contoso', 'fabrikam') { & ".\$customer\Set-GatepostRollout.ps1" -Stage Audit -AppId $app -Organization "$customer.onmicrosoft.com" -CertificateThumbprint $thumbprint }

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
    [ValidateSet('Audit', 'Pilot', 'Everyone', 'Stop')]
    [string]$Stage,

    [ValidateLength(1, 64)]
    [string]$InboundConnectorName = 'From Gatepost',

    [ValidateLength(1, 64)]
    [string]$OutboundConnectorName = 'To Gatepost',

    [ValidateLength(1, 64)]
    [string]$RoutingRuleName = 'Route to Gatepost',

    [ValidateLength(1, 64)]
    [string]$CleanUpRuleName = 'Back from Gatepost',

    [ValidatePattern('(?-i)^[!-9;-~]{1,76}\z|^@\w+@$')]
    [string]$SecretHeaderName = '@SecretHeaderName@',

    [ValidatePattern('(?-i)^[!-9;-~]{1,76}\z|^@\w+@$')]
    [string]$LoopHeaderName = '@LoopHeaderName@',

    [AllowEmptyString()]
    [string]$PilotGroup = '@PilotGroup@',

    [string]$ExportFolder,

    [switch]$Force,

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

# Whether the routing rule is bound to this group and no other. Exchange may show a group by another of its names.
function Test-GatepostGroup {
    param($Rule, [string]$Group)
    $shown = @(Get-GatepostProperty -Object $Rule -Name 'FromMemberOf' | Where-Object { $_ } | ForEach-Object { [string]$_ })
    if ($shown.Count -ne 1) { return $false }
    if ($shown[0] -eq $Group) { return $true }
    $script:Doing = "looking up the group '$Group'"
    $found = @(Get-Recipient -Identity $Group -ErrorAction Stop)
    $names = @(foreach ($key in 'PrimarySmtpAddress', 'Name', 'DisplayName', 'Identity', 'DistinguishedName', 'Guid') { [string](Get-GatepostProperty -Object $found[0] -Name $key) })
    $names -contains $shown[0]
}

#region Moment
# A date of a rule in UTC, as the service keeps it; nothing where there is none.
function ConvertTo-GatepostMoment {
    param($Value)
    $moment = [datetime]::MinValue
    if ($Value -is [datetime]) { $moment = $Value }
    elseif (-not [datetime]::TryParse([string]$Value, [System.Globalization.CultureInfo]::InvariantCulture, [System.Globalization.DateTimeStyles]'AssumeUniversal, AdjustToUniversal', [ref]$moment)) { return $null }
    if ($moment.Kind -eq [System.DateTimeKind]::Local) { return $moment.ToUniversalTime() }
    [datetime]::SpecifyKind($moment, [System.DateTimeKind]::Utc)
}
#endregion Moment

# Whether a rule does what the routing rule does: it leads to our outbound connector, or sets our secret header.
function Test-GatepostDeed {
    param($Rule)
    $header = Get-GatepostOptional -Value $SecretHeaderName
    if (Test-GatepostWay -Rule $Rule -Name $OutboundConnectorName) { return $true }
    $header -and [string](Get-GatepostProperty -Object $Rule -Name 'SetHeaderName') -eq $header
}

# The lines that stop what rules of other names send to Gatepost.
function Get-GatepostOtherStop {
    param($Rules)
    foreach ($rule in @($Rules | Where-Object { [string]$_.Name -ne $RoutingRuleName -and (Test-GatepostLive -Rule $_) -and (Test-GatepostDeed -Rule $_) })) {
        $name = ConvertTo-GatepostLiteral -Text $rule.Name
        # What is with Gatepost still has to come back: ours stays, and leads nowhere.
        if ([string]$rule.Name -eq $CleanUpRuleName -and (Test-GatepostMark -Object $rule)) { "Set-TransportRule -Identity $name -RouteMessageOutboundConnector `$null" }
        else { "Disable-TransportRule -Identity $name" }
    }
}

#region Live
# Whether a rule does what it says: enabled, enforced, and not ended. One that begins later does so without another hand.
function Test-GatepostLive {
    param($Rule)
    $end = ConvertTo-GatepostMoment -Value (Get-GatepostProperty -Object $Rule -Name 'ExpiryDate')
    [string](Get-GatepostProperty -Object $Rule -Name 'State') -eq 'Enabled' -and [string](Get-GatepostProperty -Object $Rule -Name 'Mode') -eq 'Enforce' -and ($null -eq $end -or $end -gt [datetime]::UtcNow)
}
#endregion Live

#region Way
# Whether a rule leads to this connector, by any of the names that Exchange gives it.
function Test-GatepostWay {
    param($Rule, [string]$Name, $Connector)
    $names = @($Name)
    foreach ($key in 'Guid', 'DistinguishedName', 'Identity') { $names += [string](Get-GatepostProperty -Object $Connector -Name $key) }
    $way = [string](Get-GatepostProperty -Object $Rule -Name 'RouteMessageOutboundConnector')
    '' -ne $way -and $names -contains $way
}
#endregion Way

#region Literal
# A name as it stands in a line to paste: PowerShell takes the curly quotes for quotes as well.
function ConvertTo-GatepostLiteral {
    param([string]$Text)
    "'" + ($Text -replace "['\u2018-\u201B]", '$0$0') + "'"
}
#endregion Literal

#region Held
# Whether a rule holds it: not nothing, empty, false or zero; a spam confidence level of zero is one.
function Test-GatepostHeld {
    param([string]$Name, $Value)
    if ($Value -is [bool]) { return $Value }
    $members = @($Value | Where-Object { $null -ne $_ -and '' -ne [string]$_ })
    if ($members.Count -eq 0) { return $false }
    $Name -match '^(SetSCL|(ExceptIf)?SCLOver)$' -or [string]$members[0] -notmatch '^(0|False)$'
}
#endregion Held

#region Condition
# What of a rule's properties is a condition or an exception; the others are actions, dates, and what every rule has.
$script:Condition = '^(ADComparison|AnyOf|Attachment|BetweenMemberOf|ContentCharacterSet|ExceptIf|From|Has|Header|Manager|MessageContains|MessageSize|MessageType|Recipient|SCLOver|Sender|Sent|Subject|With)'

# Whether an exception of the routing rule leaves nothing for it: for the tenant's own senders, whose mail it takes, or for the scope it asks for.
function Test-GatepostVoid {
    param($Rule, [string]$Name)
    $value = [string](Get-GatepostProperty -Object $Rule -Name $Name)
    if ($Name -eq 'ExceptIfFromScope') { return $value -eq 'InOrganization' }
    $Name -eq 'ExceptIfSentToScope' -and $value -and $value -eq [string](Get-GatepostProperty -Object $Rule -Name 'SentToScope')
}
#endregion Condition

#region Group
# Whether there is a group of this name in the tenant.
function Test-GatepostGroupThere {
    param([string]$Name)
    $script:Doing = "reading the group '$Name'"
    $found = @()
    try { $found = @(Get-Recipient -Identity $Name -ErrorAction Stop) } catch {
        if ([string]$_ -notmatch 'couldn''t be found|could not be found|wasn''t found|not found') { throw }
        Write-Verbose "The group '$Name' is not there."
    }
    $found.Count -eq 1 -and [string](Get-GatepostProperty -Object $found[0] -Name 'RecipientType') -match 'Group'
}
#endregion Group

# Before anything is changed.
function Assert-GatepostGroup {
    param([string]$Name)
    if (-not (Test-GatepostGroupThere -Name $Name)) { Deny-GatepostRun -Reason "'$Name' is no group of this tenant: the routing rule could not be bound to it. Nothing was changed. Give another -PilotGroup." }
}

# Refuses a stage that sends mail, or is about to, while something that brings it back is not in place.
function Assert-GatepostReady {
    param($Rules, $Routing)
    $script:Doing = 'reading the inbound connectors'
    $inbound = Find-GatepostObject -List @(Get-InboundConnector -ErrorAction Stop) -Name $InboundConnectorName -Type 'inbound connector'
    $script:Doing = 'reading the outbound connectors'
    $outbound = Find-GatepostObject -List @(Get-OutboundConnector -IncludeTestModeConnectors $true -ErrorAction Stop) -Name $OutboundConnectorName -Type 'outbound connector'
    $cleanUp = Find-GatepostObject -List $Rules -Name $CleanUpRuleName -Type 'transport rule'
    $bad = @()
    if ([string](Get-GatepostProperty -Object $inbound -Name 'Enabled') -ne 'True') { $bad += "the inbound connector '$InboundConnectorName' is missing or disabled" }
    if ([string](Get-GatepostProperty -Object $outbound -Name 'Enabled') -ne 'True') { $bad += "the outbound connector '$OutboundConnectorName' is missing or disabled" }
    elseif ([string](Get-GatepostProperty -Object $outbound -Name 'TestMode') -eq 'True') { $bad += "the outbound connector '$OutboundConnectorName' is in test mode" }
    if ([string](Get-GatepostProperty -Object $cleanUp -Name 'State') -ne 'Enabled' -or [string](Get-GatepostProperty -Object $cleanUp -Name 'Mode') -ne 'Enforce') { $bad += "the rule '$CleanUpRuleName' is missing, disabled or not in mode Enforce: the loop header would leave the tenant" }
    elseif ([int]$cleanUp.Priority -ne [int]$Routing.Priority + 1) { $bad += "the rule '$CleanUpRuleName' does not stand directly behind '$RoutingRuleName'" }
    $words = @(Get-GatepostProperty -Object $Routing -Name 'ExceptIfHeaderContainsWords' | Where-Object { $_ })
    if ([string](Get-GatepostProperty -Object $Routing -Name 'ExceptIfHeaderContainsMessageHeader') -ne $LoopHeaderName -or $words.Count -eq 0) { $bad += "the rule '$RoutingRuleName' has no exception for $LoopHeaderName`: mail would go round" }
    if ([string](Get-GatepostProperty -Object $Routing -Name 'FromScope') -ne 'InOrganization') { $bad += "the rule '$RoutingRuleName' is not limited to the tenant's own senders" }
    foreach ($key in 'ExceptIfFromScope', 'ExceptIfSentToScope') { if (Test-GatepostVoid -Rule $Routing -Name $key) { $bad += "the rule '$RoutingRuleName' leaves out by $key all that it takes: nothing would go to Gatepost" } }
    $back = @(Get-GatepostProperty -Object $cleanUp -Name 'HeaderContainsWords' | Where-Object { $_ })
    if ($null -ne $cleanUp -and @($words | Where-Object { $back -ccontains $_ }).Count -eq 0) { $bad += "the rules '$RoutingRuleName' and '$CleanUpRuleName' have no loop value in common: the header would stay on mail that has come back, or mail would go round" }
    $now = [datetime]::UtcNow
    foreach ($rule in @(@($Routing, $cleanUp) | Where-Object { $null -ne $_ })) {
        $end = ConvertTo-GatepostMoment -Value (Get-GatepostProperty -Object $rule -Name 'ExpiryDate')
        $begin = ConvertTo-GatepostMoment -Value (Get-GatepostProperty -Object $rule -Name 'ActivationDate')
        if ($null -ne $end -and $end -le $now) { $bad += "the rule '$($rule.Name)' has ended (ExpiryDate)" }
        if ($null -ne $begin -and $begin -gt $now) {
            # When users' mail begins may be meant; that mail comes back without the clean-up rule is not.
            if ([object]::ReferenceEquals($rule, $Routing)) { Write-Warning "The rule '$($rule.Name)' begins at its ActivationDate, $($begin.ToString('yyyy-MM-dd HH:mm', [System.Globalization.CultureInfo]::InvariantCulture)) UTC." }
            else { $bad += "the rule '$($rule.Name)' has not begun (ActivationDate)" }
        }
        foreach ($key in 'DeleteMessage', 'RedirectMessageTo', 'RejectMessageReasonText', 'RejectMessageEnhancedStatusCode', 'ModerateMessageByUser', 'ModerateMessageByManager', 'Quarantine') {
            $value = Get-GatepostProperty -Object $rule -Name $key
            if (@($value | Where-Object { $_ -and [string]$_ -ne 'False' }).Count -gt 0) { $bad += "the rule '$($rule.Name)' holds $key, and keeps mail back or loses it" }
        }
    }
    if ([string](Get-GatepostProperty -Object $cleanUp -Name 'RouteMessageOutboundConnector')) { $bad += "the rule '$CleanUpRuleName' leads mail that has come back to a connector" }
    if ($null -ne $cleanUp) {
        # How an address is read is no condition.
        $usual = @('HeaderContainsMessageHeader', 'HeaderContainsWords', 'SenderAddressLocation', 'RecipientAddressType')
        $narrows = @($cleanUp.PSObject.Properties | Where-Object { $_.Name -match $script:Condition -and $usual -notcontains $_.Name -and (Test-GatepostHeld -Name $_.Name -Value $_.Value) } | ForEach-Object { $_.Name } | Sort-Object)
        if ($narrows.Count -gt 0) { $bad += "the rule '$CleanUpRuleName' does not take all mail that comes back ($($narrows -join ', ')): the loop header would leave the tenant" }
    }
    foreach ($rule in @($Rules | Where-Object { @($RoutingRuleName, $CleanUpRuleName) -notcontains [string]$_.Name -and [int]$_.Priority -lt [int]$Routing.Priority })) {
        if (-not (Test-GatepostLive -Rule $rule)) { continue }
        # Mail from outside is none of ours, and what such a rule stops ours does not see.
        if ([string](Get-GatepostProperty -Object $rule -Name 'FromScope') -eq 'NotInOrganization' -or [string](Get-GatepostProperty -Object $rule -Name 'StopRuleProcessing') -eq 'True') { continue }
        $round = "mail that has come back would go to Gatepost again until a hop limit ends it (let the rule stand behind '$RoutingRuleName', or remove it)"
        if ([string](Get-GatepostProperty -Object $rule -Name 'RemoveHeader') -eq $LoopHeaderName) { $bad += "the rule '$($rule.Name)' (priority $($rule.Priority)) takes $LoopHeaderName off before '$RoutingRuleName': $round" }
        elseif ([string](Get-GatepostProperty -Object $rule -Name 'SetHeaderName') -eq $LoopHeaderName) {
            if ($words -contains [string](Get-GatepostProperty -Object $rule -Name 'SetHeaderValue')) { Write-Warning "The rule '$($rule.Name)' (priority $($rule.Priority)) sets $LoopHeaderName before '$RoutingRuleName': mail that it takes never reaches Gatepost." }
            else { $bad += "the rule '$($rule.Name)' (priority $($rule.Priority)) sets another $LoopHeaderName before '$RoutingRuleName': $round" }
        }
    }
    if ($null -ne $cleanUp) { foreach ($key in 'HeaderContainsMessageHeader', 'RemoveHeader') { if ([string](Get-GatepostProperty -Object $cleanUp -Name $key) -ne $LoopHeaderName) { $bad += "the rule '$CleanUpRuleName' is not for $LoopHeaderName ($key)" } } }
    if ([string](Get-GatepostProperty -Object $outbound -Name 'TlsSettings') -ne 'DomainValidation') { $bad += "the outbound connector '$OutboundConnectorName' does not ask whose certificate it meets (TlsSettings)" }
    if (-not (Test-GatepostWay -Rule $Routing -Name $OutboundConnectorName -Connector $outbound)) { $bad += "the rule '$RoutingRuleName' does not lead to '$OutboundConnectorName'" }
    if ($bad.Count -gt 0) { Deny-GatepostRun -Reason "Nothing was changed: $($bad -join '; '). Repair-GatepostConnector.ps1 sets back what differs, Install-GatepostConnector.ps1 makes what is missing; 'gatepost connector diff' has a line for the rest." }
    if ([string](Get-GatepostProperty -Object $outbound -Name 'IsValidated') -ne 'True') {
        $message = "The outbound connector '$OutboundConnectorName' is not validated: Confirm-GatepostConnector.ps1 comes before mail of users."
        if ($Stage -ne 'Audit' -and -not $Force) { Deny-GatepostRun -Reason "$message -Force goes on without. Nothing was changed." }
        Write-Warning $message
    }
}

try {
    if ($Stage -ne 'Stop') { Assert-GatepostValue -Name 'LoopHeaderName' -Value $LoopHeaderName }
    Connect-GatepostTenant
    $script:Doing = 'reading the transport rules'
    $rules = @(Get-TransportRule -ErrorAction Stop)
    $routing = Find-GatepostObject -List $rules -Name $RoutingRuleName -Type 'transport rule' -Adopt ($Stage -eq 'Stop')
    if ($null -eq $routing -and $Stage -eq 'Stop') {
        $renamed = @(Get-GatepostOtherStop -Rules $rules)
        if ($renamed.Count -gt 0) { Deny-GatepostRun -Reason "There is no rule '$RoutingRuleName' in tenant $TenantId. Nothing was changed. Rules of another name send mail to Gatepost; what stops them: $($renamed -join '; ')" }
    }
    if ($null -eq $routing) { Deny-GatepostRun -Reason "There is no rule '$RoutingRuleName' in tenant $TenantId`: Install-GatepostConnector.ps1 makes it. Nothing was changed." }
    $type = 'transport rule'
    $target = "$type '$RoutingRuleName' of tenant $TenantId"
    $enabled = [string](Get-GatepostProperty -Object $routing -Name 'State') -eq 'Enabled'
    $mode = [string](Get-GatepostProperty -Object $routing -Name 'Mode')

    if ($Stage -eq 'Stop') {
        if (-not (Test-GatepostMark -Object $routing)) {
            # The brake asks what the rule does, and not what somebody wrote into its comment.
            if (-not (Test-GatepostDeed -Rule $routing)) { Deny-GatepostRun -Reason "The rule '$RoutingRuleName' does not look like Gatepost's: no mark in its comment, it does not lead to '$OutboundConnectorName', and it does not set our secret header. Nothing was changed. Where it is to stop all the same: Disable-TransportRule -Identity $(ConvertTo-GatepostLiteral -Text $RoutingRuleName)" }
            Write-Warning "The comment of the rule '$RoutingRuleName' does not begin with '$($script:Mark)', but the rule does what Gatepost's does. Install-GatepostConnector.ps1 -Force gives it the mark back."
        }
        if (-not $enabled) {
            Write-GatepostResult -Type $type -Name $RoutingRuleName -Action 'Unchanged' -Message 'already disabled'
        } else {
            $action = Get-GatepostHeld -Would 'WouldUpdate'
            if ($PSCmdlet.ShouldProcess($target, 'Disable')) {
                $script:Doing = "disabling the rule '$RoutingRuleName'"
                Disable-TransportRule -Identity $RoutingRuleName -Confirm:$false -ErrorAction Stop
                $action = 'Updated'
            }
            Write-GatepostResult -Type $type -Name $RoutingRuleName -Action $action -Changes @("State: 'Enabled' -> 'Disabled'") -Message 'takes effect within minutes; connectors and clean-up rule stay, so that mail which is with Gatepost comes back'
        }
        $others = @(Get-GatepostOtherStop -Rules $rules)
        if ($others.Count -gt 0) { Write-Warning "Rules of another name still send mail to Gatepost, and were left as they are; what stops them: $($others -join '; ')" }
    } else {
        Assert-GatepostReady -Rules $rules -Routing $routing
        $group = Get-GatepostOptional -Value $PilotGroup
        $bound = @(Get-GatepostProperty -Object $routing -Name 'FromMemberOf' | Where-Object { $_ })
        if ($Stage -eq 'Pilot' -and -not $group -and $bound.Count -eq 0) { Deny-GatepostRun -Reason 'The stage Pilot needs a group: give -PilotGroup. Nothing was changed.' }
        $wantedMode = 'Enforce'
        if ($Stage -eq 'Audit') { $wantedMode = 'Audit' }
        # Only the stage it comes from is known. A rule that Install has made is disabled, and its mode is Audit.
        if ($Stage -ne 'Audit' -and -not $enabled -and $mode -eq 'Audit') { Write-Warning "The rule goes from the stage Stop to $Stage. The stage Audit comes between: it sends nothing, and shows in the message trace what the rule would take." }
        elseif ($Stage -eq 'Everyone' -and $mode -eq 'Audit') { Write-Warning 'The rule goes from the stage Audit to Everyone. The stage Pilot comes between: it sends the mail of one group.' }
        if ($Stage -ne 'Everyone' -and $group) { Assert-GatepostGroup -Name $group }
        $set = @{ Identity = $RoutingRuleName }
        $changes = @()
        if ($mode -ne $wantedMode) {
            $set['Mode'] = $wantedMode
            $changes += "Mode: '$mode' -> '$wantedMode'"
        }
        if ($Stage -eq 'Everyone') {
            if ($bound.Count -gt 0) {
                $set['FromMemberOf'] = $null
                $changes += "FromMemberOf: '$($bound -join ', ')' -> ''"
            }
        } elseif ($group -and -not (Test-GatepostGroup -Rule $routing -Group $group)) {
            $set['FromMemberOf'] = @($group)
            $changes += "FromMemberOf: '$($bound -join ', ')' -> '$group'"
        }
        if (-not $enabled) { $changes += "State: 'Disabled' -> 'Enabled'" }
        $message = switch ($Stage) {
            'Audit' { 'sends nothing: Get-MessageTraceV2 shows what it would take; then -Stage Pilot' }
            'Pilot' { 'sends the mail of the group through Gatepost; then -Stage Everyone' }
            'Everyone' { 'sends everyone''s mail through Gatepost; -Stage Stop ends that' }
        }
        if ($changes.Count -eq 0) {
            Write-GatepostResult -Type $type -Name $RoutingRuleName -Action 'Unchanged' -Message $message
        } else {
            $action = Get-GatepostHeld -Would 'WouldUpdate'
            if ($PSCmdlet.ShouldProcess($target, "Stage $Stage`: $($changes -join '; ')")) {
                Save-GatepostBefore
                # The group and the mode come first, so that the rule is never enabled for more than it should be.
                if ($set.Count -gt 1) {
                    $script:Doing = "setting the stage $Stage of the rule '$RoutingRuleName'"
                    Set-TransportRule @set -Confirm:$false -ErrorAction Stop
                }
                if (-not $enabled) {
                    $script:Doing = "enabling the rule '$RoutingRuleName'"
                    Enable-TransportRule -Identity $RoutingRuleName -Mode $wantedMode -Confirm:$false -ErrorAction Stop
                }
                $action = 'Updated'
            }
            Write-GatepostResult -Type $type -Name $RoutingRuleName -Action $action -Changes $changes -Message $message
        }
    }
} catch {
    $PSCmdlet.ThrowTerminatingError((Get-GatepostFailure -Record $_))
} finally {
    Disconnect-GatepostTenant
}
